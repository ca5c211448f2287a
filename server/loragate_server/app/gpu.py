"""Whether this machine has a GPU, asked of its driver: loading torch for that takes seconds."""

from __future__ import annotations

import ctypes
from pathlib import Path

_DRIVER = "libcuda.so.1"
_AMD = Path("/dev/kfd")  # torch names such devices `cuda` as well


def gpu_present() -> bool:
    """Whether the driver counts a device that this process may use."""
    return _AMD.exists() or _nvidia_devices() > 0


def _nvidia_devices() -> int:
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value
