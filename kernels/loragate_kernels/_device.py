"""What a result says about the device it was computed on, and how to launch there."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers = npt.NDArray[np.int64]
"""Tables of the host. Of a few hundred numbers NumPy makes one in a tenth of PyTorch's time."""


def device_name(device: torch.device) -> str:
    """The name of the GPU, or the type of any other device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Makes `device` the one that Triton launches on; nothing for CPU tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def sent(table: Tensor | Numbers, device: torch.device) -> Tensor:
    """A table of the host on `device`, without waiting for what the device is doing.

    A copy from ordinary memory waits for the whole stream, and every table of a call would; one
    from pinned memory is enqueued like a launch, and the allocator keeps the memory until then.
    """
    tensor = table if isinstance(table, Tensor) else torch.from_numpy(np.ascontiguousarray(table))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
