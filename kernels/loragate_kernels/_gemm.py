"""Matrix products in full float32, whatever the process allows itself elsewhere."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch
from torch import Tensor

TILE_ELEMENTS = 1 << 20
"""Elements of a 16-bit operand that are widened at once on a CPU: 4 MiB, about a cache. Fixed,
because the number of rows of a product can change its last bits."""

_lock = threading.Lock()
_users = 0
_before: tuple[str, str] = ("none", "none")


@contextlib.contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Float32 products keep all their bits inside, and no gradient is recorded.

    TF32 and bfloat16 shortcuts for float32 products are settings of the process, so while one
    thread is inside, products of other threads are exact too; the last to leave restores what
    the first has found. Autocast, which would narrow the operands, belongs to the thread.
    """
    _enter()
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        _leave()


def _enter() -> None:
    global _users, _before
    with _lock:
        if _users == 0:
            _before = _precision()
            _set_precision(("ieee", "ieee"))
        _users += 1


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0:
            _set_precision(_before)


def _precision() -> tuple[str, str]:
    return (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]
    )


def _set_precision(values: tuple[str, str]) -> None:
    torch.backends.cuda.matmul.fp32_precision = values[0]
    torch.backends.mkldnn.matmul.fp32_precision = values[1]  # type: ignore[attr-defined]


def matmul_float32(left: Tensor, right: Tensor) -> Tensor:
    """left @ right with float32 sums and a float32 result; call it inside `full_precision`.

    Products of two bfloat16 matrices on CUDA run on its matrix units, which add in float32. All
    other 16-bit operands are widened first, which is exact: on a CPU some rows of `left` at a
    time, so that the wide copy stays in the cache.

    Args:
        left: [n, k] in float32, bfloat16 or float16.
        right: [k, m], the same.
    """
    if left.is_cuda and left.dtype == right.dtype == torch.bfloat16:
        return torch.mm(left, right, out_dtype=torch.float32)
    right = right.float()
    if left.is_cuda or left.dtype == torch.float32:
        return torch.mm(left.float(), right)
    result = torch.empty(len(left), right.shape[1], dtype=torch.float32, device=left.device)
    height = max(1, TILE_ELEMENTS // max(1, left.shape[1]))
    shape = min(height, len(left)), left.shape[1]
    wide = torch.empty(shape, dtype=torch.float32, device=left.device)
    for top in range(0, len(left), height):
        rows = left[top : top + height]
        tile = wide[: len(rows)].copy_(rows)
        torch.mm(tile, right, out=result[top : top + len(rows)])
    return result
