"""Changes of the concept library: on the worker's thread, then swapped in as a whole."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from loragate_server.audit.engine import AuditEngine
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.worker import Worker
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash, Report, silent

BuildEngine = Callable[[BaseModel, ConceptLibrary, Report], AuditEngine]
"""Builds the probes of the library on a base model, and the engine around them."""

Change = Callable[[ConceptLibrary], ConceptLibrary]

_log = logging.getLogger(__name__)


def serve_base(
    base: BaseModel, library: ConceptLibrary, build: BuildEngine, report: Report = silent
) -> ServedBase:
    """The base model with an engine for the library as it is now. Blocks; may use the device."""
    return ServedBase(
        name=base.name,
        base=base,
        engine=build(base, library, report),
        library_digest=library.digest,
        concept_ids=frozenset(concept.concept_id for concept in library.forbidden),
    )


class LibraryKeeper:
    """Adds and removes concepts while audits go on.

    Audits that run or wait use the library that is swapped in when their turn comes; a change is
    in force when the call returns. Probes are built from a copy of the library before the library
    itself is changed, so that a change which fails leaves the old one in force and on disk.

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

    def on_change(self, callback: Callable[[ConceptLibrary], None]) -> None:
        """Calls back with every new library that is in force, on the thread that changed it."""
        self._callbacks.append(callback)

    async def create(self, concept: Concept, pictures: Sequence[bytes], leash: Leash) -> str:
        """Adds a concept, rebuilds the probes of every base model, and swaps the engines.

        Returns:
            The new digest of the library.

        Raises:
            NoDecisionError: CONCEPT_EXISTS, CONCEPT_PICTURES_INVALID, REQUEST_INVALID, DISK_FULL,
                or whatever `Worker.submit` raises.
        """
        return await self._run(lambda library: library.add(concept, pictures), leash)

    async def remove(self, concept_id: str, leash: Leash) -> str:
        """Removes a concept, rebuilds and swaps as `create` does.

        Returns:
            The new digest of the library.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, LIBRARY_EMPTY when too few concepts would be left,
                DISK_FULL, or whatever `Worker.submit` raises.
        """
        return await self._run(lambda library: library.remove(concept_id), leash)

    async def _run(self, change: Change, leash: Leash) -> str:
        def work() -> str:
            return self._apply(change, leash.report)

        # Shielded: a change that has begun is finished, whether or not its caller still waits.
        running = asyncio.ensure_future(self._worker.submit(work, leash))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            leash.cancel()
            running.add_done_callback(_log_outcome)
            raise

    def _apply(self, change: Change, report: Report) -> str:
        with _copy(self.library.folder) as folder:
            planned = change(ConceptLibrary.open(folder))
            built = self._serve(planned, report)
        changed = change(self.library)
        if changed.digest != planned.digest:
            # Another process has changed the folder in between.
            built = self._serve(changed, report)
        self._bases.swap(built)
        self.library = changed
        for callback in self._callbacks:
            callback(changed)
        return changed.digest

    def _serve(self, library: ConceptLibrary, report: Report) -> list[ServedBase]:
        return [serve_base(one.base, library, self._build, report) for one in self._bases.served]


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
