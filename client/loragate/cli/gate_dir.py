"""`loragate gate-dir`: decides about all adapters of a folder, before a server starts with them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from loragate.cli import junit, sarif
from loragate.cli.adapter_files import FoundFile, find
from loragate.cli.exit_code import ExitCode
from loragate.cli.outcome import Outcome
from loragate.cli.output import (
    Explainer,
    as_json,
    error_as_json,
    pilot_note,
    print_json,
    took,
)
from loragate.cli.parser import asked_of
from loragate.cli.saving import SignedPlace
from loragate.cli.table import AUDIT_COLUMNS, audit_row, error_row, print_table, printable
from loragate.client import AuditClient
from loragate.errors import AuditError
from loragate.reference import AuditOptions
from loragate.signed import SIGNED_VERDICT


def gate_dir(client: AuditClient, options: argparse.Namespace) -> ExitCode:
    """Audits the files, writes the reports; the worst outcome is the exit code."""
    folder = Path(options.folder)
    quarantine = Path(options.quarantine) if options.quarantine else None
    if quarantine is not None and quarantine.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"The quarantine {quarantine} lies inside {folder}; choose another place.")
    for option in ("sarif", "junit"):
        _require_writable(option, getattr(options, option))
    if options.sarif and options.junit and _same(options.sarif, options.junit):
        raise ValueError(f"--sarif and --junit both name {options.sarif}. Give each its own file.")
    if quarantine is not None:
        _require_folder(quarantine)
    files = find(folder, follow_symlinks=options.follow_symlinks)
    if not files and not options.allow_empty:
        raise FileNotFoundError(
            f"There is no adapter in {folder}. Is it the right folder? --allow-empty accepts it."
        )
    outcomes = list(_with_progress(_outcomes(client, files, options), len(files)))
    if quarantine is not None:
        outcomes = [_quarantined(outcome, quarantine) for outcome in outcomes]
    _print(outcomes, in_json=options.json)
    if not options.json:
        pilot_note(outcome.result for outcome in outcomes if outcome.result is not None)
        _note_accepted(outcomes)
    if options.sarif:
        sarif.write(Path(options.sarif), outcomes)
    if options.junit:
        junit.write(Path(options.junit), outcomes)
    return ExitCode.worst(outcome.code for outcome in outcomes)


def _note_accepted(outcomes: list[Outcome]) -> None:
    """Says to a person what was let in without asking."""
    reasons = [reason for one in outcomes if one.result for reason in one.result.reasons]
    count = sum(reason.code == SIGNED_VERDICT for reason in reasons)
    if count:
        print(f"loragate: {count} allowed by signed verdicts, unasked.", file=sys.stderr)


def _require_writable(option: str, place: str | None) -> None:
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


def _require_folder(quarantine: Path) -> None:
    """Refuses a quarantine into which nothing could be moved; it is made when it is needed.

    Raises:
        ValueError: it, or what would hold it, is no folder or may not be written to.
    """
    nearest = next(one for one in (quarantine, *quarantine.absolute().parents) if one.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
        raise ValueError(
            f"--quarantine cannot be {quarantine}: {nearest} is no folder that you may write to."
        )


def _same(one: str, other: str) -> bool:
    return Path(one).resolve() == Path(other).resolve()


def _outcomes(
    client: AuditClient, files: list[FoundFile], options: argparse.Namespace
) -> Iterator[Outcome]:
    """The outcomes in the order of the files, several in the making at a time."""
    asked, place = asked_of(options), SignedPlace(options.save_signed, several=True)
    with ThreadPoolExecutor(options.concurrency) as pool:
        yield from pool.map(lambda found: _outcome(client, found, asked, place), files)


def _outcome(
    client: AuditClient, found: FoundFile, asked: AuditOptions, place: SignedPlace
) -> Outcome:
    began = time.monotonic()
    result, error = None, None
    try:
        if found.refusal is not None:
            raise found.refusal
        audited = client.audit_file(found.path, **asked)
        place.keep(audited)
        result = audited
    except (AuditError, OSError, ValueError) as failure:
        error = failure
    return Outcome(found, result, error, time.monotonic() - began)


def _with_progress(outcomes: Iterator[Outcome], count: int) -> Iterator[Outcome]:
    """Passes outcomes on; tells a person at a terminal how far it has come."""
    shows = sys.stderr.isatty()
    for number, outcome in enumerate(outcomes, 1):
        if shows:
            line = f"{number}/{count} {printable(outcome.found.name)}"
            print(f"\r\x1b[K{line[:78]}", end="", file=sys.stderr, flush=True)
        yield outcome
    if shows:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _quarantined(outcome: Outcome, quarantine: Path) -> Outcome:
    """Moves a file that was decided against, or that is no sound adapter.

    A file about which the service could not decide stays: the next run asks again.
    """
    stays = outcome.code in (ExitCode.ALLOW, ExitCode.NOT_BINDING)
    if stays or (outcome.result is None and not outcome.is_refused):
        return outcome
    target = quarantine / outcome.found.name
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() or target.is_symlink():
        target = target.with_name(f"{target.name}.{time.time_ns()}")
    shutil.move(outcome.found.path, target)
    return Outcome(outcome.found, outcome.result, outcome.error, outcome.seconds, target)


def _print(outcomes: list[Outcome], *, in_json: bool) -> None:
    if in_json:
        for outcome in outcomes:
            print_json(_as_json(outcome))
        return
    rows, explainer = [], Explainer()
    for outcome in outcomes:
        name, spent = outcome.found.name, took(time.monotonic() - outcome.seconds)
        if outcome.result is not None:
            rows.append(audit_row(name, outcome.result, spent))
        else:
            rows.append(error_row(name, outcome.reason, spent))
            if outcome.error is not None:
                explainer.explain(name, outcome.error)
        if outcome.moved_to is not None:
            print(printable(f"loragate: moved {name} to {outcome.moved_to}"), file=sys.stderr)
    print_table(AUDIT_COLUMNS, rows, sys.stdout)


def _as_json(outcome: Outcome) -> dict[str, object]:
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
