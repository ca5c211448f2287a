"""Names the failures of log and database, so that each gets its reason and its remedy."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from loragate_server.errors import ErrorReason, NoDecisionError

RETRY_AFTER_S = 5.0
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_POSTGRES_DISK_FULL = "53100"
_MAX_CAUSE = 300


def log_failure(error: OSError, path: Path) -> NoDecisionError:
    """The decision log could not be written."""
    cause = error.strerror or type(error).__name__
    if error.errno in _FULL:
        return _disk_full(f"The decision log {path.name} has no room left: {cause}.")
    remedy = "The operator has to make the decision log writable; without it nothing is decided."
    if error.errno == errno.EAGAIN:
        remedy = (
            "The operator has to end the other server or command that writes to it, or to give "
            "this one a --state-dir of its own; without a log nothing is decided."
        )
    return NoDecisionError(
        ErrorReason.DECISION_LOG_UNAVAILABLE,
        f"The decision log {path.name} cannot be written: {cause}.",
        remedy=remedy,
        metadata={"file": path.name},
        retry_after_s=RETRY_AFTER_S,
    )


def database_failure(error: BaseException) -> NoDecisionError:
    """The database did not do what it was asked."""
    cause = _cause(error)
    if _is_full(error):
        return _disk_full(f"The database has no room left: {cause}.")
    return NoDecisionError(
        ErrorReason.DATABASE_UNAVAILABLE,
        f"The database does not answer as it should: {cause}.",
        remedy="The operator has to bring the database back; without it nothing is decided.",
        retry_after_s=RETRY_AFTER_S,
    )


def _disk_full(message: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.DISK_FULL,
        message,
        remedy="The operator has to make room on the disk.",
        retry_after_s=RETRY_AFTER_S,
    )


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, sqlite3.Error):
        return getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return getattr(original, "sqlstate", None) == _POSTGRES_DISK_FULL


def _cause(error: BaseException) -> str:
    """The driver's first line: no statement, no parameters, no password."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig else error
    if isinstance(original, SQLAlchemyError):
        text = str(original.args[0]) if original.args else ""
    else:
        text = str(original)
    first = text.strip().splitlines()[0] if text.strip() else type(original).__name__
    return first[:_MAX_CAUSE].rstrip(".")
