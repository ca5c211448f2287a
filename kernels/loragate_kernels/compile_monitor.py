"""Counts kernels that are compiled while requests wait: after a complete warm-up, none.

with CompileMonitor() as monitor:
    serve()
monitor.count  # 0, or None where it cannot be known
"""

from __future__ import annotations

import logging
from functools import cache
from types import TracebackType
from typing import Any, Self

from loragate_kernels.backend import is_interpreted

logger = logging.getLogger(__name__)


class CompileMonitor:
    """Listens to Triton's compiler between `start` and `stop`, or inside a `with`.

    A kernel that Triton loads from its cache on disk counts too: the launch waited for it.
    Every launch that had to compile is also logged as a warning.
    """

    def __init__(self) -> None:
        self._compiled: list[str] = []
        self._warmed_up: list[str] = []
        self._listening = False
        self._installed = False
        self._previous: Any = None

    @property
    def compiled(self) -> tuple[str, ...]:
        """Names of the kernels that a launch had to compile, in order."""
        return tuple(self._compiled)

    @property
    def warmed_up(self) -> tuple[str, ...]:
        """Names of the kernels that were compiled ahead of any launch, in order."""
        return tuple(self._warmed_up)

    @property
    def count(self) -> int | None:
        """How many launches had to compile; None where kernels are interpreted, which no hook sees.

        None is no zero: nothing was counted.
        """
        return None if is_interpreted() else len(self._compiled)

    def start(self) -> Self:
        """Begins to listen; whoever listened before still does."""
        import triton  # late: most processes that import this package never launch a kernel

        self._listening = True
        if not self._installed:
            self._installed = True
            self._previous = triton.knobs.runtime.jit_post_compile_hook
            triton.knobs.runtime.jit_post_compile_hook = self._hook
        return self

    def stop(self) -> None:
        """Ends listening; what was counted stays."""
        import triton

        self._listening = False
        # Someone who began later passes on to this one: then the chain stays, and this is deaf.
        if triton.knobs.runtime.jit_post_compile_hook == self._hook:
            triton.knobs.runtime.jit_post_compile_hook = self._previous
            self._installed = False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _hook(self, *, fn: Any, is_manual_warmup: bool, **rest: Any) -> Any:
        if self._listening:
            (self._warmed_up if is_manual_warmup else self._compiled).append(fn.name)
            if not is_manual_warmup:
                logger.warning("kernel %s was compiled by a launch, after warm-up", fn.name)
        if self._previous is not None:
            return self._previous(fn=fn, is_manual_warmup=is_manual_warmup, **rest)
        return None


@cache
def process_monitor() -> CompileMonitor:
    """The one monitor of this process; listens from the first call on, and for good."""
    return CompileMonitor().start()
