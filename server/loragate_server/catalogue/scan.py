"""One scan from the listing to the last row, with what earlier runs of it have done left out."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.catalogue.progress import Progress
from loragate_server.catalogue.recording import Recording
from loragate_server.catalogue.results import Results
from loragate_server.gate.bases import ServedBase
from loragate_server.policy.policy import Policy

TOLD_EVERY_S = 5.0


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


def scan_id_of(
    source: str, served: ServedBase, calibration: str, policy: Policy, loaders: Sequence[str]
) -> str:
    """Names a scan by all that its verdicts depend on: with another library it is another scan.

    Args:
        source: as it was named.
        served: the base model with its library.
        calibration: digest of that which p-values come from; "" without one.
        policy: in force.
        loaders: that verdicts speak for.
    """
    named = (
        source,
        served.name,
        served.base.digest,
        served.library_digest,
        calibration,
        policy.digest,
        ENGINE_VERSION,
        *loaders,
    )
    return hashlib.sha256("\n".join(named).encode()).hexdigest()[:16]


async def consume(
    rows: Iterator[dict[str, Any]],
    recording: Recording,
    results: Results,
    progress: Progress,
    *,
    tell: Callable[[Progress], None],
    stopped: asyncio.Event,
) -> None:
    """Records what comes until nothing more does, or the stop.

    What was recorded is on disk as results when this ends, however it ends.

    Raises:
        NoDecisionError: nothing can be recorded.
    """
    telling = asyncio.create_task(_tell(progress, tell))
    try:
        while not stopped.is_set():
            row = await _until_stopped(asyncio.to_thread(next, rows, None), stopped)
            if row is None:
                break
            await recording.take(row)
        recording.end()
    finally:
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling
        results.flush()
        tell(progress)


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
