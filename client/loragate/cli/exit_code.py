"""What the exit code of the command says."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from loragate.results import AuditResult, Verdict


class ExitCode(IntEnum):
    """Exit codes, as the help documents them."""

    ALLOW = 0
    BLOCK = 1
    REVIEW = 2
    ERROR = 3
    NOT_BINDING = 4

    @classmethod
    def of(cls, result: AuditResult) -> ExitCode:
        """The code of one decision; INCONCLUSIVE counts as REVIEW, for a person has to look.

        0 says that the adapters may be loaded, so an ALLOW on which no load may rest has another.
        """
        if result.verdict is Verdict.ALLOW:
            return cls.ALLOW if result.allowed else cls.NOT_BINDING
        return cls.BLOCK if result.verdict is Verdict.BLOCK else cls.REVIEW

    @classmethod
    def worst(cls, codes: Iterable[ExitCode]) -> ExitCode:
        """The code of several: error before block, review and not binding, these before allow."""
        return max(codes, key=_GRAVITY.index, default=cls.ALLOW)


_GRAVITY = (
    ExitCode.ALLOW,
    ExitCode.NOT_BINDING,
    ExitCode.REVIEW,
    ExitCode.BLOCK,
    ExitCode.ERROR,
)
