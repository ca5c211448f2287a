"""Providers: the ways to compute one operation that are timed against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Call = Callable[[], Mapping[str, Tensor]]
"""Computes an operation once over operands it was prepared with; results by name."""


@dataclass(frozen=True)
class Provider:
    """One way to compute an operation.

    Attributes:
        op: name of the operation.
        name: short, as in tables.
        what: one line for readers.
        prepare: operands to a call; what is prepared is not timed.
        traffic: bytes that the operations of a call read and write, operand by operand, as if
            nothing stayed in a cache; results of a few numbers per row are left out. The exact
            sum is checked against the operations that PyTorch dispatches.
        least_traffic: whether `traffic` is only a lower bound (generated code).
        triton: whether it launches Triton kernels of its own, so needs a GPU or the interpreter.
        compiled: whether preparing it compiles for long.
        graph: whether a CUDA graph can capture it.
    """

    op: str
    name: str
    what: str
    prepare: Callable[[Any], Call]
    traffic: Callable[[Any], int]
    least_traffic: bool = False
    triton: bool = False
    compiled: bool = False
    graph: bool = True


_PROVIDERS: dict[tuple[str, str], Provider] = {}


def register(provider: Provider) -> Provider:
    """Makes a provider known by (op, name).

    Raises:
        ValueError: the name is taken.
    """
    key = (provider.op, provider.name)
    if key in _PROVIDERS:
        raise ValueError(f"{provider.op} already has a provider {provider.name!r}")
    _PROVIDERS[key] = provider
    return provider


def provider(op: str, name: str) -> Provider:
    """The provider of that name.

    Raises:
        KeyError: there is none; the message lists those there are.
    """
    try:
        return _PROVIDERS[op, name]
    except KeyError:
        known = ", ".join(one for other, one in _PROVIDERS if other == op)
        raise KeyError(f"{op} has no provider {name!r}; known are {known}") from None
