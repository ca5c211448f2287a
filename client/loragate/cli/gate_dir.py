"""`loragate gate-dir`: decides about all adapters of a folder, before a server starts with them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

from loragate.cli import junit, sarif
from loragate.cli.adapter_files import find
from loragate.cli.exit_code import ExitCode
from loragate.cli.gating import (
    LiveLine,
    note,
    outcomes_of,
    print_json_of,
    print_table_of,
    require_writable,
    with_progress,
)
from loragate.cli.outcome import Outcome
from loragate.cli.parser import asked_of
from loragate.cli.saving import SignedPlace
from loragate.client import AuditClient
from loragate.signed import SIGNED_VERDICT


def gate_dir(client: AuditClient, options: argparse.Namespace) -> ExitCode:
    """Audits the files, writes the reports; the worst outcome is the exit code."""
    folder = Path(options.folder)
    quarantine = Path(options.quarantine) if options.quarantine else None
    if quarantine is not None and quarantine.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"The quarantine {quarantine} lies inside {folder}; choose another place.")
    for option in ("sarif", "junit"):
        require_writable(option, getattr(options, option))
    if options.sarif and options.junit and _same(options.sarif, options.junit):
        raise ValueError(f"--sarif and --junit both name {options.sarif}. Give each its own file.")
    if quarantine is not None:
        _require_folder(quarantine)
    files = find(folder, follow_symlinks=options.follow_symlinks)
    if not files and not options.allow_empty:
        raise FileNotFoundError(
            f"There is no adapter in {folder}. Is it the right folder? --allow-empty accepts it."
        )
    keep = SignedPlace(options.save_signed, several=True).keep
    made = outcomes_of(client, files, asked_of(options), options.concurrency, keep)
    outcomes = list(with_progress(made, len(files), LiveLine()))
    if quarantine is not None:
        outcomes = [_quarantined(outcome, quarantine) for outcome in outcomes]
    if options.json:
        print_json_of(outcomes)
    else:
        print_table_of(outcomes)
        note(outcomes)
        _note_accepted(outcomes)
    if options.sarif:
        Path(options.sarif).write_bytes(sarif.text(outcomes).encode("utf-8", "replace"))
    if options.junit:
        Path(options.junit).write_text(junit.text(outcomes, "loragate gate-dir"), encoding="utf-8")
    return ExitCode.worst(outcome.code for outcome in outcomes)


def _note_accepted(outcomes: list[Outcome]) -> None:
    """Says to a person what was let in without asking."""
    reasons = [reason for one in outcomes if one.result for reason in one.result.reasons]
    count = sum(reason.code == SIGNED_VERDICT for reason in reasons)
    if count:
        print(f"loragate: {count} allowed by signed verdicts, unasked.", file=sys.stderr)


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
