"""One scan from the listing to the last row, with what earlier runs of it have done left out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.failure import AGAIN
from loragate_server.catalogue.progress import REFUSED, Progress
from loragate_server.catalogue.recording import Recording
from loragate_server.catalogue.results import Results, read_parts
from loragate_server.gate.bases import ServedBase
from loragate_server.policy.policy import Policy

TOLD_EVERY_S = 5.0

SETTLES_S = 10.0
"""A local file that has not changed for so long counts as written."""


@dataclass(frozen=True)
class Outcome:
    """How a run of a scan ended.

    Attributes:
        folder: of its results.
        listed: files that the source lists.
        refused: those that have no decision, of all runs.
        left: those that were not reached.
    """

    folder: Path
    listed: int
    refused: int
    left: int


def scan_id_of(source: str, served: ServedBase, policy: Policy) -> str:
    """Names a scan by all that its verdicts depend on: with another library it is another scan."""
    named = (
        source,
        served.name,
        served.base.digest,
        served.library_digest,
        policy.digest,
        ENGINE_VERSION,
    )
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Known:
    """What results say about a place.

    Attributes:
        version: of the file that they are about.
    """

    version: str
    refused: bool


def known_places(folder: Path, *, retry: bool) -> dict[str, Known]:
    """Places that have their result.

    Args:
        folder: of the results.
        retry: leave out what was refused for reasons that may have gone.

    Raises:
        OSError: a part cannot be read.
    """
    known: dict[str, Known] = {}
    for batch in read_parts(folder, ["location", "version", "outcome", "reason"]):
        for row in batch.to_pylist():
            refused = row["outcome"] == REFUSED
            if retry and refused and row["reason"] in AGAIN:
                known.pop(row["location"], None)
            else:
                known[row["location"]] = Known(row["version"] or "", refused)
    return known


def remaining(entries: Iterator[Entry], known: Mapping[str, Known]) -> Iterator[Entry]:
    """The entries that have no result or have changed since, each place once."""
    seen = set[str]()
    for entry in entries:
        before = known.get(entry.location)
        done = before is not None and before.version == entry.version
        if not done and entry.location not in seen:
            seen.add(entry.location)
            yield entry


def settled(entries: Iterator[Entry], now_unix_s: float) -> Iterator[Entry]:
    """The entries but local files that somebody may still be writing: the next look has them."""
    return (entry for entry in entries if now_unix_s - entry.changed_unix_s >= SETTLES_S)


async def consume(
    rows: Iterator[dict[str, Any]],
    recording: Recording,
    results: Results,
    progress: Progress,
    *,
    tell: Callable[[Progress], None],
    stopped: asyncio.Event,
) -> int:
    """Records what comes until nothing more does, or the stop.

    What was recorded is on disk as results when this ends, however it ends.

    Returns:
        Files that came and were not settled.

    Raises:
        NoDecisionError: nothing can be recorded.
    """
    telling = asyncio.create_task(_tell(progress, tell))
    left = 0
    try:
        while not stopped.is_set():
            row = await _until_stopped(asyncio.to_thread(next, rows, None), stopped)
            if row is None:
                break
            await recording.take(row)
        left = recording.end()
    finally:
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
        results.flush()
        tell(progress)
    return left


async def _until_stopped(coming: Any, stopped: asyncio.Event) -> dict[str, Any] | None:
    """The next row; None when there is none, or when the stop comes first."""
    row = asyncio.ensure_future(coming)
    stop = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({row, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not row.done():
        # What it still brings or raises belongs to a job that is being taken down.
        row.add_done_callback(lambda late: late.cancelled() or late.exception())
        return None
    found: dict[str, Any] | None = row.result()
    return found


async def _tell(progress: Progress, tell: Callable[[Progress], None]) -> None:
    while True:
        await asyncio.sleep(TOLD_EVERY_S)
        tell(progress)
