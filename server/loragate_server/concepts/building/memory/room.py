"""How much memory a device has left for the work."""

from __future__ import annotations

from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")
_KIB = 1024


def free_bytes(device: torch.device) -> int | None:
    """Bytes that this process may still take on a device; None where nobody can tell.

    On a GPU, what torch holds and does not use counts as free. On the CPU, the limit of a
    container counts where there is one (cgroup v2), else what the system says is available.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + unused
    known = [each for each in (_of_system(), _of_container()) if each is not None]
    return min(known, default=None)


def _of_system() -> int | None:
    for line in _read(_MEMINFO).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * _KIB
    return None


def _of_container() -> int | None:
    limit, used = _read(_GROUP / "memory.max").strip(), _read(_GROUP / "memory.current").strip()
    if not (limit.isdigit() and used.isdigit()):  # no container, or one without a limit
        return None
    # pages of files that nobody has open are given up when somebody needs the room
    spare = [
        int(line.split()[1])
        for line in _read(_GROUP / "memory.stat").splitlines()
        if line.startswith("inactive_file ")
    ]
    return max(0, int(limit) - int(used) + sum(spare))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
