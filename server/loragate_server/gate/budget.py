"""A budget of adapter bytes in flight, so that many large files at once are refused, not fatal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.observer import GateObserver


class ByteBudget:
    """Counts bytes in flight and refuses those that do not fit.

    Refusal is immediate: a caller that waited here would hold its own bytes in memory meanwhile.
    Used from one event loop only.
    """

    def __init__(self, limit_bytes: int, observer: GateObserver) -> None:
        if limit_bytes <= 0:
            raise ValueError(f"the byte budget must be positive, not {limit_bytes}")
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self._observer = observer

    @contextmanager
    def hold(self, size_bytes: int = 0) -> Iterator[Held]:
        """Holds `size_bytes` of the budget inside the block, and what is added there.

        Raises:
            NoDecisionError: BYTE_BUDGET_EXHAUSTED, with a retry hint if the bytes can ever fit.
        """
        held = Held(self)
        held.add(size_bytes)
        try:
            yield held
        finally:
            self._add(-held.size_bytes)

    def require_room(self, size_bytes: int) -> None:
        """Refuses bytes that would not fit now, without holding any.

        What is declared costs nothing to declare: only bytes that have come are held.

        Raises:
            NoDecisionError: BYTE_BUDGET_EXHAUSTED, as `hold`.
        """
        if self.used_bytes + size_bytes > self.limit_bytes:
            raise self._refusal(size_bytes)

    def _add(self, size_bytes: int) -> None:
        self.used_bytes += size_bytes
        self._observer.inflight_bytes(self.used_bytes)

    def _refusal(self, size_bytes: int) -> NoDecisionError:
        fits_alone = size_bytes <= self.limit_bytes
        return NoDecisionError(
            ErrorReason.BYTE_BUDGET_EXHAUSTED,
            f"{size_bytes} bytes do not fit: {self.used_bytes} of {self.limit_bytes} bytes "
            "are in flight.",
            remedy="Ask again when other audits have ended."
            if fits_alone
            else "Raise the server's byte budget; these adapters never fit into it.",
            metadata={"budget_bytes": str(self.limit_bytes)},
            retry_after_s=1.0 if fits_alone else None,
        )


class Held:
    """What one piece of work holds of a budget.

    Attributes:
        size_bytes: so much.
    """

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """Holds more.

        Raises:
            NoDecisionError: BYTE_BUDGET_EXHAUSTED.
        """
        self._budget.require_room(size_bytes)
        self.size_bytes += size_bytes
        self._budget._add(size_bytes)
