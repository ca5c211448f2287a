"""Tells whether a tensor still holds what it held: by its place where that is enough, or by a sum.

A sum is two passes over the bytes on the device where they are, so that moving a tensor changes
nothing and nothing is copied. It is no hash against people who search for collisions; whoever can
run code in this process needs none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import ref

_WIDTH = 1024
_FACTOR = 0x9E3779B97F4A7C15 - (1 << 64)  # odd, so that no place is lost when products wrap
Print = tuple[str, tuple[int, ...], int | None]
"""Type, shape and sum; no sum where the bytes cannot be reached."""


class Prints:
    """Prints of tensors, remembered by what torch says of their place and of writes to them."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[ref[Any], tuple[Any, ...], Print]] = {}

    def of(self, tensors: Sequence[Any], *, anew: bool = False) -> list[Print]:
        """The print of each tensor.

        Args:
            tensors: what to look at.
            anew: sums up even where nothing is said to have been written: writes through `.data`
                are not.
        """
        found = [None if anew else self._remembered(tensor) for tensor in tensors]
        missing = [number for number, one in enumerate(found) if one is None]
        made = _made([tensors[number] for number in missing])
        if anew:
            self._known.clear()
        for number, one in zip(missing, made, strict=True):
            found[number] = one
            self._remember(tensors[number], one)
        return [one for one in found if one is not None]

    def _remembered(self, tensor: Any) -> Print | None:
        known = self._known.get(id(tensor))
        # An id and a place in memory come back when a tensor is gone; a weak reference does not.
        if known is None or known[0]() is not tensor or known[1] != _key(tensor):
            return None
        return known[2]

    def _remember(self, tensor: Any, one: Print) -> None:
        key = _key(tensor)
        if key is not None:
            self._known[id(tensor)] = (ref(tensor), key, one)


def _key(tensor: Any) -> tuple[Any, ...] | None:
    """What changes when other bytes are put in place, or are written the usual way."""
    try:
        place = (tensor.data_ptr(), tensor._version)
    except (RuntimeError, NotImplementedError):
        return None  # made under inference_mode, or of a class without a place of its own
    return (*place, tensor.device, tensor.dtype, tuple(tensor.shape))


def _made(tensors: Sequence[Any]) -> list[Print]:
    """Sums of many tensors, fetched from each device at once."""
    import torch

    sums: dict[Any, list[tuple[int, Any]]] = {}
    found: list[int | None] = [None] * len(tensors)
    with torch.no_grad():
        for number, tensor in enumerate(tensors):
            total = _sum(tensor)
            if total is not None:
                sums.setdefault(total.device, []).append((number, total))
        for group in sums.values():
            values = torch.stack([total for _, total in group]).tolist()
            for (number, _), value in zip(group, values, strict=True):
                found[number] = value
    return [
        (f"{type(tensor).__name__} {tensor.dtype}", tuple(tensor.shape), value)
        for tensor, value in zip(tensors, found, strict=True)
    ]


def _sum(tensor: Any) -> Any:
    """A sum over the bytes in which places count; None where there are none to be read."""
    import torch

    if tensor.is_meta:
        return None
    try:
        raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
        if raw.storage_offset() % 8:
            raw = raw.clone()
    except (RuntimeError, NotImplementedError, TypeError):
        return None  # a class of tensor that keeps its bytes to itself
    whole = raw.numel() // (8 * _WIDTH) * 8 * _WIDTH
    square = raw[:whole].view(torch.int64).reshape(-1, _WIDTH)
    rows, columns = square.sum(1), square.sum(0)
    rest = raw[whole:].to(torch.int64)
    total = torch.zeros((), dtype=torch.int64, device=raw.device)
    for number, part in enumerate((rows, columns, rest), 1):
        places = torch.arange(1, part.numel() + 1, device=raw.device) * _FACTOR
        total = total * _FACTOR + (part * (places ^ (places >> 29))).sum() * number
    return total
