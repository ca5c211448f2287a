"""Tells, of an exception, whether the machine or its device had no memory left."""

from __future__ import annotations

import errno

_SAID_OF_MEMORY = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""What torch says in a plain RuntimeError, on the CPU and where a library of CUDA had no room."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the machine or its device has no memory left."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    text = str(error) if isinstance(error, RuntimeError) else ""
    return any(words in text for words in _SAID_OF_MEMORY)
