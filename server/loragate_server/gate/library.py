"""Changes of the concept library: made in the background, then swapped in as a whole."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from loragate_server.audit.engine import AuditEngine
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.faults import audit_failed
from loragate_server.gate.worker import Worker, draining
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash, Report, Turns, at_once, silent
from loragate_server.threads import DaemonPool

BuildEngine = Callable[[BaseModel, ConceptLibrary, Report, Turns], AuditEngine]
"""Builds the probes of the library on a base model, and the engine around them; whatever needs the
base model is done in turns."""

MOST_WAITING = 8
"""Changes that may wait for the one that is made; each holds its pictures in memory."""

Result = TypeVar("Result")
Change = Callable[[ConceptLibrary], ConceptLibrary]

_log = logging.getLogger(__name__)


def serve_base(
    base: BaseModel,
    library: ConceptLibrary,
    build: BuildEngine,
    report: Report = silent,
    turns: Turns = at_once,
) -> ServedBase:
    """The base model with an engine for the library as it is now. Blocks."""
    return ServedBase(
        name=base.name,
        base=base,
        engine=build(base, library, report, turns),
        library_digest=library.digest,
        concept_ids=frozenset(concept.concept_id for concept in library.forbidden),
    )


class LibraryKeeper:
    """Adds and removes concepts while audits go on.

    One change is made at a time, on a thread of its own; only what needs a base model goes to the
    worker, in short pieces among the audits. Those use the old library until the new one is
    complete and swapped in, which it is when the call returns. Probes are built from a copy of the
    library before the library itself is changed, so that a change which fails leaves the old one
    in force and on disk.

    Attributes:
        library: the library in force.
    """

    def __init__(
        self, library: ConceptLibrary, bases: BaseRegistry, worker: Worker, build: BuildEngine
    ) -> None:
        self.library = library
        self._bases = bases
        self._worker = worker
        self._build = build
        self._callbacks: list[Callable[[ConceptLibrary], None]] = []
        self._thread = DaemonPool(1, "library")
        self._unfinished = 0

    def on_change(self, callback: Callable[[ConceptLibrary], None]) -> None:
        """Calls back with every new library that is in force, on the thread that changed it."""
        self._callbacks.append(callback)

    async def create(self, concept: Concept, pictures: Sequence[bytes], leash: Leash) -> str:
        """Adds a concept, rebuilds the probes of every base model, and swaps the engines.

        Returns:
            The new digest of the library.

        Raises:
            NoDecisionError: CONCEPT_EXISTS, CONCEPT_PICTURES_INVALID, REQUEST_INVALID, DISK_FULL,
                QUEUE_FULL when too many changes wait, or whatever `Worker.submit` raises.
        """
        return await self._run(lambda library: library.add(concept, pictures), leash)

    async def replace(
        self, concept: Concept, pictures: Sequence[bytes], leash: Leash, before: str = ""
    ) -> str:
        """Changes a concept; without pictures it keeps those that it has. As `create` otherwise.

        One that is not `before`, its digest, when its turn has come is left alone.

        Returns:
            The new digest of the library.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, and what `create` raises.
        """
        return await self._run(lambda library: library.replace(concept, pictures, before), leash)

    async def remove(self, concept_id: str, leash: Leash, before: str = "") -> str:
        """Removes a concept, rebuilds and swaps as `create` does; `before` as for `replace`.

        Returns:
            The new digest of the library.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, LIBRARY_EMPTY when too few concepts would be left,
                DISK_FULL, QUEUE_FULL as for `create`, or whatever `Worker.submit` raises.
        """
        return await self._run(lambda library: library.remove(concept_id, before), leash)

    async def adopt(self, leash: Leash) -> str:
        """Brings the folder into force as it is now, whoever has changed it. As `create` otherwise.

        Returns:
            The new digest of the library.

        Raises:
            NoDecisionError: LIBRARY_EMPTY or CONCEPT_PICTURES_INVALID when the folder is of no use,
                and what `create` raises.
        """
        return await self._run(lambda library: ConceptLibrary.open(library.folder), leash)

    def close(self) -> None:
        """Takes no more changes. One that is being made ends when the worker refuses its pieces."""
        self._thread.shutdown(cancel_futures=True)

    async def _run(self, change: Change, leash: Leash) -> str:
        if self._unfinished > MOST_WAITING:
            raise NoDecisionError(
                ErrorReason.QUEUE_FULL,
                f"{MOST_WAITING} changes of the library wait already.",
                remedy="Ask again when they are made.",
                metadata={"queue_limit": str(MOST_WAITING)},
                retry_after_s=10.0,
            )
        turns = _WorkersTurns(self._worker, asyncio.get_running_loop())

        def work() -> str:
            leash.check()
            try:
                return self._apply(change, leash.report, turns)
            except NoDecisionError:
                raise
            except BaseException as error:  # the caller learns an incident, and no more
                raise audit_failed(error) from None

        self._unfinished += 1
        try:
            # Shielded: a change that has begun is finished, whether or not its caller still waits.
            running = asyncio.wrap_future(self._thread.submit(work))
        except RuntimeError:
            self._unfinished -= 1
            raise draining() from None
        running.add_done_callback(self._finished)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            leash.cancel()
            running.add_done_callback(_log_outcome)
            raise

    def _finished(self, _: asyncio.Future[str]) -> None:
        self._unfinished -= 1

    def _apply(self, change: Change, report: Report, turns: Turns) -> str:
        with _copy(self.library.folder) as folder:
            planned = change(ConceptLibrary.open(folder))
            built = self._serve(planned, report, turns)
        changed = change(self.library)
        if changed.digest != planned.digest:
            # Another process has changed the folder in between.
            built = self._serve(changed, report, turns)
        turns(lambda: self._put_in_force(changed, built))
        return changed.digest

    def _put_in_force(self, changed: ConceptLibrary, built: Sequence[ServedBase]) -> None:
        """Between two audits, so that none sees half of the one and half of the other."""
        self._bases.swap(built)
        self.library = changed
        for callback in self._callbacks:
            callback(changed)

    def _serve(self, library: ConceptLibrary, report: Report, turns: Turns) -> list[ServedBase]:
        made = []
        for one in self._bases.served:
            made.append(serve_base(one.base, library, self._build, report, turns))
            if one.engine.calibrated and not made[-1].engine.calibrated:
                raise _calibration_lost(one.name)
        return made


def _calibration_lost(base_model: str) -> NoDecisionError:
    return NoDecisionError(
        ErrorReason.REQUEST_INVALID,
        f"With this change no concept of base model {base_model} would be calibrated any more, and "
        "little would be blocked: what was kept beside the calibration is missing or of another "
        "one; the log says which.",
        remedy="Put the file `.kept.safetensors` that `calibrate` has written back beside the "
        "calibration and ask again; or stop the server, change the library by `loragate-server "
        "concepts` and make a new calibration.",
        metadata={"base_model": base_model},
    )


@dataclass(frozen=True)
class _WorkersTurns:
    """`Turns` for a thread beside the worker's: each piece waits among the audits."""

    worker: Worker
    loop: asyncio.AbstractEventLoop

    def __call__(self, piece: Callable[[], Result]) -> Result:
        """Raises what the piece raises, and DRAINING when the server stops."""
        asked = self.worker.submit(piece, Leash(), background=True)
        try:
            turn = asyncio.run_coroutine_threadsafe(asked, self.loop)
        except RuntimeError:  # the event loop has ended
            asked.close()
            raise draining() from None
        try:
            return turn.result()
        except CancelledError:
            raise draining() from None


@contextmanager
def _copy(folder: Path) -> Iterator[Path]:
    """A copy of a library's folder that may be changed, for as long as the block lasts."""
    with ExitStack() as stack:
        try:
            parent = stack.enter_context(tempfile.TemporaryDirectory(prefix="loragate-library-"))
            copy = Path(shutil.copytree(folder, Path(parent) / "library"))
        except OSError as error:
            raise NoDecisionError(
                ErrorReason.DISK_FULL,
                "The concept library cannot be copied to the folder for temporary files.",
                remedy="Make room there, or let TMPDIR name another folder.",
            ) from error
        yield copy


def _log_outcome(running: asyncio.Future[str]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        _log.warning("a change of the library ended after its caller had gone: %s", error)
