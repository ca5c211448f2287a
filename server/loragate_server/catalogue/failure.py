"""Why a file has no decision, as columns of its row."""

from __future__ import annotations

import logging
from typing import Any

from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.out_of_memory import is_out_of_memory

KILLS = "KILLS_THE_AUDIT"
"""Reason of a file at which the process that looked at it alone was killed."""

AGAIN = frozenset(
    {
        ErrorReason.SOURCE_UNREADABLE,
        ErrorReason.SOURCE_NOT_FOUND,
        ErrorReason.DEADLINE_EXCEEDED,
        ErrorReason.OUT_OF_MEMORY,
        ErrorReason.AUDIT_FAILED,
        KILLS,
    }
)
"""Reasons that may be the machine's or the network's; a later scan can try these files again."""

_log = logging.getLogger(__name__)


def no_failure() -> dict[str, Any]:
    """The columns of a file that is fine so far."""
    return {"reason": "", "message": "", "remedy": ""}


def failure_of(error: Exception) -> dict[str, Any]:
    """The columns of a refused file."""
    if isinstance(error, NoDecisionError):
        return {"reason": str(error.reason), "message": error.message, "remedy": error.remedy}
    if is_out_of_memory(error):
        reason, message = ErrorReason.OUT_OF_MEMORY, "There was no memory left for the file."
    else:
        _log.error("a file could not be audited", exc_info=error)
        reason = ErrorReason.AUDIT_FAILED
        message = f"The audit failed with {type(error).__name__}; the log of the job says more."
    return {
        "reason": str(reason),
        "message": message,
        "remedy": "Do not load the adapter; scan again with --retry.",
    }


def faulty(fault: str) -> dict[str, Any]:
    """The columns of what a source lists and nobody can read."""
    return {
        "reason": str(ErrorReason.SOURCE_UNREADABLE),
        "message": fault,
        "remedy": "Load nothing from there; mend it, and scan again with --retry.",
    }


def poison() -> dict[str, Any]:
    """The columns of a file that takes processes down."""
    return {
        "reason": KILLS,
        "message": "The process that audited the file alone was killed.",
        "remedy": "Do not load the adapter; look for what ended it, and scan again with --retry.",
    }
