"""What commands print, for programs and for people."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from loragate.cli.table import printable
from loragate.cli.told import is_about_service, short, told
from loragate.errors import AuditError
from loragate.results import AuditResult


def as_json(result: AuditResult) -> dict[str, Any]:
    """A decision as JSON has it."""
    # The bytes would be copied, and neither they nor the error belong into the output.
    fields = asdict(replace(result, audited_bytes=None, cause=None))
    for name in ("audited_bytes", "cause", "clock_skew_s", "signed"):
        del fields[name]
    if result.left_out is None:
        del fields["left_out"]
    return fields | {"allowed": result.allowed}


def error_as_json(error: Exception) -> dict[str, Any]:
    """Why there is no decision, as JSON has it."""
    fields: dict[str, Any] = {"message": told(error), "reason": short(error)}
    if isinstance(error, AuditError):
        fields |= {
            "message": error.message,
            "code": error.code,
            "remedy": error.remedy,
            "metadata": error.metadata,
            "retry_after_s": error.retry_after_s,
        }
    return fields


class Explainer:
    """Says why there is no decision about a file.

    What is wrong with the way to the service is wrong for every file, so it names none of them and
    is said once.
    """

    def __init__(self) -> None:
        self._said: set[str] = set()

    def explain(self, name: str, error: Exception) -> None:
        """Says it to a person."""
        about_service = is_about_service(error)
        text = told(error) if about_service else f"{name}: {told(error)}"
        if about_service and text in self._said:
            return
        self._said.add(text)
        print(printable(f"loragate: {text}"), file=sys.stderr)


def pilot_note(results: Iterable[AuditResult]) -> None:
    """Says to a person that a pilot let in what enforcing would keep out."""
    count = sum(result.only_by_pilot for result in results)
    if count:
        print(
            f"loragate: the policy is a pilot, which observes; enforced, it would keep out {count}"
            " of what it allowed here.",
            file=sys.stderr,
        )


def took(began: float) -> str:
    """The time since `began` on the monotonic clock."""
    return took_s(time.monotonic() - began)


def took_s(seconds: float) -> str:
    """Seconds, as a person reads them."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def print_json(value: dict[str, Any]) -> None:
    """Prints one object on one line."""
    print(json_line(value, sys.stdout.encoding or "utf-8"))


def json_line(value: dict[str, Any], encoding: str = "utf-8") -> str:
    """One object on one line; escapes what the encoding cannot hold, as in odd file names."""
    text = json.dumps(value, default=_encode, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, default=_encode)
    return text


def _encode(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form in JSON")
