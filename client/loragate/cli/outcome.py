"""What became of one file of a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from loragate.cli.adapter_files import FoundFile, RefusedFileError
from loragate.cli.exit_code import ExitCode
from loragate.cli.told import short, told
from loragate.errors import InvalidAdapter
from loragate.results import AuditResult


@dataclass(frozen=True)
class Outcome:
    """What became of one file.

    Attributes:
        result: the decision; None where there is none.
        error: why there is none.
        seconds: how long it took.
        moved_to: where it was put into quarantine.
    """

    found: FoundFile
    result: AuditResult | None
    error: Exception | None
    seconds: float
    moved_to: Path | None = None

    @property
    def code(self) -> ExitCode:
        """What it does to the exit code."""
        return ExitCode.ERROR if self.result is None else ExitCode.of(self.result)

    @property
    def reason(self) -> str:
        """A stable word for why it is not allowed, or only so far."""
        if isinstance(self.error, RefusedFileError):
            return self.error.reason
        if self.error is not None:
            return short(self.error)
        assert self.result is not None  # noqa: S101 (one of the two is there)
        if self.code is ExitCode.NOT_BINDING:
            return "NOT_BINDING"
        return "ONLY_BY_PILOT" if self.result.only_by_pilot else self.result.verdict

    @property
    def is_refused(self) -> bool:
        """Whether the file itself is no sound adapter; else the service did not decide."""
        return isinstance(self.error, RefusedFileError | InvalidAdapter)

    @property
    def is_worth_a_look(self) -> bool:
        """Whether a report has to name it: all but what is allowed whatever the mode."""
        result = self.result
        return self.code is not ExitCode.ALLOW or (result is not None and result.only_by_pilot)

    @property
    def message(self) -> str:
        """Why, in a sentence or two."""
        if self.result is None:
            return told(self.error) if self.error is not None else ""
        why = " ".join(reason.message for reason in self.result.reasons)
        if self.code is ExitCode.NOT_BINDING:
            why = f"No load may rest on it. {why}".rstrip()
        elif self.result.only_by_pilot:
            would_be = self.result.would_be_verdict
            why = f"Only the pilot lets it in; enforced, the policy says {would_be}. {why}".rstrip()
        return f"{self.result.verdict}. {why} (decision {self.result.decision_id})"
