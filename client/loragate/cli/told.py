"""Errors as people and reports are told of them: without the names of Python's classes."""

from __future__ import annotations

from loragate._reading import NotAFileError
from loragate.errors import AuditError, Exhausted, PermissionDenied, Unavailable

_SERVICE = (Unavailable, Exhausted, PermissionDenied)
_TO_NOBODY = ("DEADLINE_EXCEEDED", "UNIMPLEMENTED", "UNKNOWN")
"""Codes that, without a reason of the service, say that it was not reached."""


def told(error: Exception) -> str:
    """What went wrong, in a sentence."""
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}."
    return str(error)


def short(error: Exception) -> str:
    """A stable word for tables and reports."""
    if isinstance(error, AuditError):
        # Without a code it is an answer that came and that the SDK does not believe.
        return error.reason or error.code or "ANSWER_NOT_BELIEVED"
    if isinstance(error, FileNotFoundError):
        return "FILE_NOT_FOUND"
    if isinstance(error, TimeoutError):
        return "READ_TOO_SLOW"
    if isinstance(error, OSError):
        return "UNREADABLE"
    return "NOT_A_FILE" if isinstance(error, NotAFileError) else "REQUEST_INVALID"


def is_about_service(error: Exception) -> bool:
    """Whether an error comes from the way to the service, for which no adapter is to blame."""
    if not isinstance(error, AuditError):
        return False
    return isinstance(error, _SERVICE) or (not error.reason and error.code in _TO_NOBODY)
