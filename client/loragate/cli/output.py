"""What commands print, for programs and for people."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from loragate.cli.table import printable
from loragate.errors import AuditError
from loragate.results import AuditResult


def as_json(result: AuditResult) -> dict[str, Any]:
    """A decision as JSON has it."""
    # The bytes would be copied, and neither they nor the error belong into the output.
    fields = asdict(replace(result, audited_bytes=None, cause=None))
    del fields["audited_bytes"], fields["cause"], fields["clock_skew_s"]
    return fields | {"allowed": result.allowed}


def error_as_json(error: Exception) -> dict[str, Any]:
    """Why there is no decision, as JSON has it."""
    fields: dict[str, Any] = {"message": str(error), "reason": short(error)}
    if isinstance(error, AuditError):
        fields |= {
            "message": error.message,
            "code": error.code,
            "remedy": error.remedy,
            "metadata": error.metadata,
            "retry_after_s": error.retry_after_s,
        }
    return fields


def explain(name: str, error: Exception, *, in_json: bool) -> None:
    """Says why there is no decision about a file."""
    if in_json:
        print_json({"file": name, "verdict": None, "error": error_as_json(error)})
    else:
        print(printable(f"loragate: {name}: {error}"), file=sys.stderr)


def short(error: Exception) -> str:
    """A word for the table."""
    if isinstance(error, AuditError):
        return error.reason or error.code or type(error).__name__
    return type(error).__name__


def took(began: float) -> str:
    """The time since `began` on the monotonic clock."""
    seconds = time.monotonic() - began
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def print_json(value: dict[str, Any]) -> None:
    """Prints one object on one line."""
    print(json.dumps(value, default=_encode, ensure_ascii=False))


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
