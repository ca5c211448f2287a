"""Compiles kernels before the first request needs them.

An operation takes part by naming a module in `OPERATIONS` that has `compile_keys(device)`, the
list of everything it may launch there, and `compile_key(key, device)`, which compiles one of it.
`CompileMonitor` then tells whether the lists were complete.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch

from loragate_kernels.backend import BackendUnavailableError, is_interpreted, require_backend

OPERATIONS: tuple[str, ...] = (
    "loragate_kernels.pair_stats.compilation",
    "loragate_kernels.lora_response.compilation",
)
"""Modules that list and compile the kernels of one operation each."""


class CompilableOperation(Protocol):
    """What a module named in `OPERATIONS` offers."""

    def compile_keys(self, device: torch.device) -> Sequence[Hashable]:
        """Everything that the operation may launch on `device`; each key has a telling `str`."""

    def compile_key(self, key: Hashable, device: torch.device) -> None:
        """Compiles one of these keys into this process."""


@dataclass(frozen=True)
class WarmUpReport:
    """What `warm_up` did.

    Attributes:
        compiled: the compiled variants by name; empty where kernels are interpreted.
        seconds: how long it took.
        interpreted: whether this process interprets kernels, so that there is nothing to compile.
    """

    compiled: tuple[str, ...]
    seconds: float
    interpreted: bool


def warm_up(
    device: torch.device | str,
    *,
    operations: Sequence[str] = OPERATIONS,
    report: Callable[[float], None] | None = None,
) -> WarmUpReport:
    """Compiles every variant that the operations may launch on `device`.

    With Triton's disk cache warm this only loads; calling it again does nothing.

    Args:
        device: where the kernels will run.
        operations: names of modules like those in `OPERATIONS`.
        report: told the share that is done before each variant. What it raises ends the work.

    Raises:
        BackendUnavailableError: kernels cannot run on `device` in this process, or one of them
            cannot be compiled here.
    """
    device = torch.device(device)
    require_backend("triton", device)
    began = time.monotonic()
    if is_interpreted():
        return WarmUpReport((), 0.0, interpreted=True)
    modules = [cast(CompilableOperation, importlib.import_module(name)) for name in operations]
    wanted = [(module, key) for module in modules for key in module.compile_keys(device)]
    for done, (module, key) in enumerate(wanted):
        if report is not None:
            report(done / len(wanted))
        try:
            module.compile_key(key, device)
        except Exception as error:
            # A compiler, an assembler and a C compiler work here: their errors share no class.
            raise BackendUnavailableError(f"{key} cannot be compiled: {error}") from error
    names = tuple(str(key) for _, key in wanted)
    return WarmUpReport(names, time.monotonic() - began, interpreted=False)
