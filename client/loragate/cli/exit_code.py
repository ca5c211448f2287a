"""What the exit code of the command says."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from loragate.results import Verdict


class ExitCode(IntEnum):
    """Exit codes, as the help documents them."""

    ALLOW = 0
    BLOCK = 1
    REVIEW = 2
    ERROR = 3

    @classmethod
    def of(cls, verdict: Verdict) -> ExitCode:
        """The code of one verdict; INCONCLUSIVE counts as REVIEW, for a person has to look."""
        return _OF_VERDICT[verdict]

    @classmethod
    def worst(cls, codes: Iterable[ExitCode]) -> ExitCode:
        """The code of several: error before block before review before allow."""
        return max(codes, key=_GRAVITY.index, default=cls.ALLOW)


_OF_VERDICT = {
    Verdict.ALLOW: ExitCode.ALLOW,
    Verdict.BLOCK: ExitCode.BLOCK,
    Verdict.REVIEW: ExitCode.REVIEW,
    Verdict.INCONCLUSIVE: ExitCode.REVIEW,
}
_GRAVITY = (ExitCode.ALLOW, ExitCode.REVIEW, ExitCode.BLOCK, ExitCode.ERROR)
