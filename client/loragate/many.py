"""`Audited`: one of many adapters, with its result or the reason why there is none."""

from __future__ import annotations

import os
from dataclasses import dataclass

from loragate.reference import Source
from loragate.results import AuditResult

DEFAULT_CONCURRENCY = 4
_MOST_CONCURRENCY = 64


@dataclass(frozen=True)
class Audited:
    """What `audit_many` and `audit_files` yield for each adapter.

    Attributes:
        index: place of the adapter in what was passed, from 0.
        source: the adapter as it was passed.
        result: None where no decision exists.
        error: why there is none: an `AuditError`, or of files an OSError or ValueError as well.
    """

    index: int
    source: Source | os.PathLike[str]
    result: AuditResult | None
    error: Exception | None = None

    @property
    def allowed(self) -> bool:
        """Whether it may be loaded: never without a result."""
        return self.result is not None and self.result.allowed


def check_concurrency(concurrency: int) -> None:
    """Refuses a number of calls at a time that makes no sense.

    Raises:
        ValueError: not 1 to 64.
    """
    if not 1 <= concurrency <= _MOST_CONCURRENCY:
        raise ValueError(f"concurrency is 1 to {_MOST_CONCURRENCY}, not {concurrency!r}.")
