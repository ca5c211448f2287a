"""One way to change what a pipeline draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from testkit.guard_doors.bench import Bench

Act = Callable[[Bench], Any]


def _load_both(bench: Bench) -> None:
    bench.pipe.load_lora_weights(bench.files.a, adapter_name="a")
    bench.pipe.load_lora_weights(bench.files.b, adapter_name="b")


def one_active(bench: Bench) -> None:
    """Two adapters, of which one acts, at half its strength."""
    _load_both(bench)
    bench.pipe.set_adapters(["a"], [0.5])


def both_active(bench: Bench) -> None:
    """Two adapters that act together; neither was ever asked about as it acts here."""
    _load_both(bench)
    bench.pipe.set_adapters(["a", "b"], [0.5, 0.5])


def bare(bench: Bench) -> None:
    """No adapter."""


@dataclass(frozen=True)
class Door:
    """A door.

    Attributes:
        name: what a program writes to go through it.
        act: goes through it; its answer is nothing.
        before: what is loaded before; asked about and allowed.
    """

    name: str
    act: Act
    before: Act = one_active
