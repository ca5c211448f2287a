"""The format of a decision log: one JSON object a line, each bound to the line before it.

Every line holds `seq` (1, 2, 3...), `prev` (sha256 of the bytes of the line before, without its
line feed; 64 zeros before the first), `time`, `kind` and one of `verdict` (kind "decision", with
`binding`: false for dry runs and in pilot mode), `review` (kind "review": what a person said about
a decision) and `note` (kind "note": what happened to the log).

A changed, removed or inserted line breaks the chain. Whoever can rewrite the whole file can also
compute a new chain, and the removal of the last lines leaves a shorter but whole one: `record.tree`
shows both against what was handed to somebody else. A log that was moved away while no
server ran begins a new chain; `verify_log` accepts that only at the beginning of a file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GENESIS = "0" * 64
_KINDS = ("decision", "review", "note")
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Link:
    """The end of a chain: number and digest of its last line."""

    seq: int = 0
    sha256: str = GENESIS


@dataclass(frozen=True)
class LogProblem:
    """A place where a log is not what was written."""

    file: str
    line: int
    message: str


@dataclass(frozen=True)
class LogCheck:
    """What `verify_log` found.

    Attributes:
        first_prev: digest that the first line claims for the line before it; GENESIS unless the
            log continues a rotated one.
        last: end of the chain.
        chains: more than 1 if a file begins a new chain. That is so after a log was moved away
            while no server ran, and also if files are missing or were given in the wrong order.
        decision_ids: in the order of the log.
    """

    lines: int
    decision_ids: tuple[str, ...]
    first_prev: str
    last: Link
    chains: int
    problems: tuple[LogProblem, ...]

    @property
    def intact(self) -> bool:
        """Whether every line is as it was written."""
        return not self.problems


def digest(line: bytes) -> str:
    """The digest of a line, given without its line feed."""
    return hashlib.sha256(line).hexdigest()


def parse_line(line: bytes) -> dict[str, Any]:
    """Reads one line.

    Raises:
        ValueError: it is not a line of a decision log.
    """
    try:
        entry = json.loads(line)
    except (UnicodeDecodeError, RecursionError) as error:
        raise ValueError("is not JSON") from error
    if not isinstance(entry, dict):
        raise ValueError("is not a JSON object")
    seq, prev, kind = entry.get("seq"), entry.get("prev"), entry.get("kind")
    if not isinstance(seq, int) or not isinstance(prev, str) or kind not in _KINDS:
        raise ValueError("lacks seq, prev or kind")
    return entry


def verify_log(*paths: Path) -> LogCheck:
    """Checks the chain of a log; rotated files come first, oldest first.

    Raises:
        OSError: a file cannot be read.
    """
    problems: list[LogProblem] = []
    ids: list[str] = []
    last, first_prev, lines, chains = Link(), GENESIS, 0, 1
    for path in paths:
        for number, line, whole in _lines(path):
            lines += 1
            trouble = [] if whole else ["ends without a line feed"]
            try:
                entry = parse_line(line)
            except ValueError as error:
                problems.append(LogProblem(str(path), number, str(error) or "is not JSON"))
                last = Link(last.seq + 1, digest(line))
                continue
            begins = number == 1 and entry["seq"] == 1 and entry["prev"] == GENESIS
            if lines == 1:
                first_prev, last = entry["prev"], Link(entry["seq"] - 1, entry["prev"])
            elif begins:  # The log was moved away while no server ran.
                last, chains = Link(), chains + 1
            if entry["prev"] != last.sha256:
                trouble.append("does not follow the line before it")
            if entry["seq"] != last.seq + 1:
                trouble.append(f"has number {entry['seq']} where {last.seq + 1} is due")
            problems += [LogProblem(str(path), number, message) for message in trouble]
            if entry["kind"] == "decision":
                ids.append(str(entry.get("verdict", {}).get("decision_id", "")))
            last = Link(entry["seq"], digest(line))
    return LogCheck(lines, tuple(ids), first_prev, last, chains, tuple(problems))


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Number, bytes without line feed, and whether there was one, for each line of a file."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.removesuffix(b"\n"), line.endswith(b"\n")


def last_line_start(fd: int, end: int) -> int:
    """Where the line begins that ends at byte `end` of a file; `end` may be just past its feed."""
    position = end - 1  # Steps over the line feed of the line itself, if it has one.
    while position > 0:
        begin = max(0, position - _CHUNK_BYTES)
        found = os.pread(fd, position - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        position = begin
    return 0
