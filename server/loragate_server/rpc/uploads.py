"""`Uploads`: how many files each caller has on their way in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from loragate_server.errors import ErrorReason, NoDecisionError


class Uploads:
    """Counts uploads by caller. Used from one event loop only."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._inside: Counter[str] = Counter()

    @contextmanager
    def one_of(self, caller: str) -> Iterator[None]:
        """Counts one more inside the block.

        Raises:
            NoDecisionError: QUEUE_FULL; the caller has too many already.
        """
        if self._inside[caller] >= self._limit:
            raise NoDecisionError(
                ErrorReason.QUEUE_FULL,
                f"{self._limit} uploads of yours are on their way in already.",
                remedy="Wait for them, or raise listen.max_uploads_per_caller.",
                metadata={"queue_limit": str(self._limit)},
                retry_after_s=1.0,
            )
        self._inside[caller] += 1
        try:
            yield
        finally:
            self._inside[caller] -= 1
            if not self._inside[caller]:
                del self._inside[caller]
