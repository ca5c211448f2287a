"""What `gate-dir` and `scan` do with the files that they found: ask about each, show what came."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

from loragate.cli.adapter_files import FoundFile
from loragate.cli.near_miss import explain_near_misses
from loragate.cli.outcome import Outcome
from loragate.cli.output import (
    Explainer,
    as_json,
    error_as_json,
    pilot_note,
    print_json,
    took_s,
)
from loragate.cli.table import AUDIT_COLUMNS, audit_row, error_row, print_table, printable
from loragate.client import AuditClient
from loragate.errors import AuditError
from loragate.reference import AuditOptions
from loragate.results import AuditResult

_LINE = 78
"""Characters of a line that is written over again and again: one that wraps would stay."""

STARTING = "starting the engine; a first start, or one after a change, takes minutes"


def require_writable(option: str, place: str | None) -> None:
    """Refuses a report that could not be written, before everything is audited for it.

    Raises:
        ValueError: it cannot.
    """
    if place is None:
        return
    path = Path(place)
    is_new = not path.exists()
    try:
        with path.open("a"):
            pass
        if is_new:
            path.unlink()
    except OSError as error:
        raise ValueError(
            f"--{option} cannot be written: {error.strerror}: {place}. Name a file in a folder "
            "that exists and that you may write to."
        ) from None


def outcomes_of(
    client: AuditClient,
    files: Sequence[FoundFile],
    asked: AuditOptions,
    concurrency: int,
    keep: Callable[[AuditResult], object] = lambda _: None,
) -> Iterator[Outcome]:
    """The outcomes in the order of the files, several in the making at a time.

    `keep` gets each result; where it fails, there is none.
    """
    if concurrency == 1:  # on this thread, where an interruption ends the question as well
        yield from (_outcome(client, found, asked, keep) for found in files)
        return
    with ThreadPoolExecutor(concurrency) as pool:
        yield from pool.map(lambda found: _outcome(client, found, asked, keep), files)


def _outcome(
    client: AuditClient,
    found: FoundFile,
    asked: AuditOptions,
    keep: Callable[[AuditResult], object],
) -> Outcome:
    began = time.monotonic()
    result, error = None, None
    try:
        if found.refusal is not None:
            raise found.refusal
        if found.uri:
            audited = client.audit(found.uri, **asked)
        else:
            audited = client.audit_file(found.path, **asked)
        keep(audited)
        result = audited
    except (AuditError, OSError, ValueError) as failure:
        error = failure
    return Outcome(found, result, error, time.monotonic() - began)


class LiveLine:
    """One line on standard error that is written over, where a person looks at it."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._shows = sys.stderr.isatty() and not quiet
        self._quiet = quiet

    def announce(self, text: str) -> None:
        """Says once, in a plain line, what `show` will follow at a terminal."""
        if not self._shows and not self._quiet:
            print(f"loragate: {printable(text)}", file=sys.stderr, flush=True)

    def show(self, text: str) -> None:
        """Writes over what is there."""
        if self._shows:
            line = printable(text)[:_LINE]
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Leaves nothing of it."""
        if self._shows:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def with_progress(outcomes: Iterator[Outcome], count: int, line: LiveLine) -> Iterator[Outcome]:
    """Passes outcomes on; tells a person at a terminal how far it has come."""
    try:
        for number, outcome in enumerate(outcomes, 1):
            line.show(f"{number}/{count} {outcome.found.name}")
            yield outcome
    finally:
        line.clear()


def print_table_of(outcomes: Sequence[Outcome]) -> None:
    """Prints a row for each; says on standard error why there is no decision about one."""
    for outcome in outcomes:
        if outcome.moved_to is not None:
            moved = f"loragate: moved {outcome.found.name} to {outcome.moved_to}"
            print(printable(moved), file=sys.stderr)
    explain(outcomes)
    print_rows(outcomes, sys.stdout)


def note(outcomes: Sequence[Outcome]) -> None:
    """Says on standard error what people should know beside the table."""
    results = [(one.found.name, one.result) for one in outcomes if one.result is not None]
    pilot_note(result for _, result in results)
    explain_near_misses(results)


def print_rows(outcomes: Sequence[Outcome], stream: TextIO) -> None:
    """Prints a row for each."""
    print_table(AUDIT_COLUMNS, [_row(one) for one in outcomes], stream)


def _row(outcome: Outcome) -> tuple[str, ...]:
    name, spent = outcome.found.name, took_s(outcome.seconds)
    if outcome.result is not None:
        return audit_row(name, outcome.result, spent)
    return error_row(name, outcome.reason, spent)


def explain(outcomes: Sequence[Outcome]) -> None:
    """Says on standard error why there is no decision about some."""
    explainer = Explainer()
    for outcome in outcomes:
        if outcome.error is not None:
            explainer.explain(outcome.found.name, outcome.error)


def print_json_of(outcomes: Sequence[Outcome]) -> None:
    """Prints one JSON object per line and file."""
    for outcome in outcomes:
        print_json(outcome_as_json(outcome))


def outcome_as_json(outcome: Outcome) -> dict[str, object]:
    """What became of one file, as JSON has it."""
    fields: dict[str, object] = {"file": outcome.found.name}
    if outcome.result is not None:
        fields |= as_json(outcome.result)
    elif outcome.error is not None:
        fields |= {
            "verdict": None,
            "error": error_as_json(outcome.error) | {"reason": outcome.reason},
        }
    moved = outcome.moved_to
    return fields | {"moved_to": str(moved) if moved is not None else None}
