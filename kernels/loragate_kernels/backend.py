"""Which implementation computes an operation: chosen by the caller, never replaced unannounced."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Literal, get_args

import torch

Backend = Literal["reference", "triton"]


class BackendUnavailableError(RuntimeError):
    """The requested backend cannot run here; the message says what is missing."""


def require_backend(backend: str, device: torch.device) -> Backend:
    """Checks that `backend` can work on tensors of `device`.

    "reference" is plain PyTorch and runs everywhere. "triton" needs a CUDA device, or CPU tensors
    in a process whose environment had TRITON_INTERPRET=1 before Triton was first imported.

    Args:
        backend: name of the backend.
        device: where the operands live.

    Returns:
        `backend`, narrowed.

    Raises:
        ValueError: there is no backend of that name.
        BackendUnavailableError: the backend exists but cannot run on `device` in this process.
    """
    if backend not in get_args(Backend):
        raise ValueError(f"unknown backend {backend!r}; known are {', '.join(get_args(Backend))}")
    if backend == "reference":
        return "reference"
    if device.type not in ("cuda", "cpu"):
        raise BackendUnavailableError(f"backend 'triton' does not run on device '{device}'")
    if importlib.util.find_spec("triton") is None:
        raise BackendUnavailableError(
            "backend 'triton' needs the package triton, which is not installed; it exists for "
            "Linux on x86-64 and ARM. Ask for 'reference', which needs nothing"
        )
    interpreted = is_interpreted()
    if device.type == "cpu" and not interpreted:
        raise BackendUnavailableError(
            "backend 'triton' runs on CPU tensors only in Triton's interpreter: set "
            "TRITON_INTERPRET=1 before triton is first imported, or ask for 'reference'"
        )
    if device.type == "cuda" and interpreted:
        # The interpreter copies CUDA storages to the host, so addresses in a table would dangle.
        raise BackendUnavailableError(
            "backend 'triton' cannot follow pointer tables of CUDA tensors in Triton's "
            "interpreter: unset TRITON_INTERPRET"
        )
    return "triton"


def is_interpreted() -> bool:
    """Whether this process decorates kernels for the interpreter.

    The environment alone does not tell: Triton reads it when a kernel is decorated, so the
    kernel itself is asked.
    """
    kernel = importlib.import_module("loragate_kernels.pair_stats.kernel")
    return type(kernel.pair_stats_partial_kernel).__name__ == "InterpretedFunction"
