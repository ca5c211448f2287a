"""What a result says about the device it was computed on, and how to launch there."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager

import torch


def device_name(device: torch.device) -> str:
    """The name of the GPU, or the type of any other device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Makes `device` the one that Triton launches on; nothing for CPU tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
