"""`Sealer`: gives what tells of people as HMAC, so that equal values still match.

The digest of the line is that of the original, and is put into the sealed line as `sha256`: a
sealed copy can be joined with the log by it, and cannot be verified alone.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from loragate_server.policy.review import APPROVED_CODE, REJECTED_CODE
from loragate_server.record.chain import parse_line
from loragate_server.record.codec import to_json
from loragate_server.record.devices.line import LogLine

PREFIX = "hmac-sha256:"
KEY_BYTES = 32
_EACH = "*"

SENSITIVE = (
    ("verdict", "caller", "service"),
    ("verdict", "caller", "tenant"),
    ("verdict", "caller", "request_id"),
    ("verdict", "caller", "identity"),
    ("verdict", "caller", "adapter_names", _EACH),
    ("verdict", "basis", "adapters", _EACH, "config_json"),
    ("verdict", "basis", "rulings", _EACH, "reviewers", _EACH),
    ("verdict", "basis", "rulings", _EACH, "reason"),
    ("review", "event", "reviewer"),
    ("review", "event", "reason"),
    ("review", "ruling", "reviewers", _EACH),
    ("review", "ruling", "reason"),
    ("note", "change", "event", "person"),
    ("note", "change", "event", "reason"),
)
"""Where a line tells of people: who asked, what they call a file, who judged or changed the concept
library, and in which words.

An `adapter_config.json` may hold paths of whoever made it."""

_TELLING = (APPROVED_CODE, REJECTED_CODE)
"""Reasons whose sentences name the reviewer and what he wrote."""


class KeyFileError(Exception):
    """A file of keys cannot be used; the text says why."""


def read_keys(file: Path) -> tuple[bytes, ...]:
    """The keys of a file, one per line; the first one is in force, the others were.

    Raises:
        KeyFileError: it cannot be read, or holds something else.
    """
    try:
        lines = file.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no text"
        raise KeyFileError(f"{file} cannot be read: {cause}") from error
    keys = []
    for number, line in enumerate(lines, start=1):
        try:
            key = base64.b64decode(line, validate=True)
        except binascii.Error:
            key = b""
        if len(key) != KEY_BYTES:
            raise KeyFileError(
                f"key {number} of {file} is not {KEY_BYTES} bytes in base64; make one with "
                "`openssl rand -base64 32`"
            )
        keys.append(key)
    if not keys:
        raise KeyFileError(f"{file} holds no key; make one with `openssl rand -base64 32`")
    return tuple(keys)


def sealed_value(key: bytes, value: str) -> str:
    """A value as devices get it; an empty one says nothing and stays empty."""
    if not value:
        return value
    # As JSON carries them, names of strangers may hold lone surrogates.
    data = value.encode("utf-8", "surrogatepass")
    return PREFIX + hmac.digest(key, data, "sha256").hex()


class Sealer:
    """Seals lines under the first key of a file, which is read again for each batch."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def sealed(self, lines: Sequence[LogLine]) -> list[LogLine]:
        """The lines, with values instead of which nobody sees more than whether they are equal.

        Raises:
            KeyFileError: without a key, nothing is given away.
        """
        key = read_keys(self._file)[0]
        return [replace(one, text=_sealed(one, key)) for one in lines]


def _sealed(line: LogLine, key: bytes) -> bytes:
    entry = parse_line(line.text)
    for path in SENSITIVE:
        _change(entry, path, lambda value: sealed_value(key, value))
    for reason in _reasons(entry):
        for name in ("message", "plain"):
            _change(reason, (name,), lambda value: sealed_value(key, value))
    entry["sha256"] = line.link.sha256
    return to_json(entry).encode("ascii")


def _reasons(entry: dict[str, Any]) -> list[dict[str, Any]]:
    if entry["kind"] != "decision":
        return []
    reasons = entry.get("verdict", {}).get("decision", {}).get("reasons", [])
    return [one for one in reasons if one.get("code") in _TELLING]


def _change(value: Any, path: tuple[str, ...], change: Callable[[str], str]) -> None:
    """Puts `change(text)` in the place of every text at `path`; what is not there is left out."""
    first, rest = path[0], path[1:]
    if first == _EACH:
        places: list[Any] = list(range(len(value))) if isinstance(value, list) else []
    else:
        places = [first] if isinstance(value, dict) and first in value else []
    for place in places:
        if rest:
            _change(value[place], rest, change)
        elif isinstance(value[place], str):
            value[place] = change(value[place])
