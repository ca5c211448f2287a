"""Changes of the concept library: on the worker's thread, then swapped in as a whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from loragate_server.concepts.library import Concept, ConceptLibrary
from loragate_server.gate.bases import BaseRegistry, Engine, ServedBase
from loragate_server.gate.worker import Worker
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash, Report, silent

BuildEngine = Callable[[BaseModel, ConceptLibrary, Report], Engine]
"""Builds the probes of the library on a base model, and the engine around them."""

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
    in force when the call returns.
    """

    def __init__(
        self, library: ConceptLibrary, bases: BaseRegistry, worker: Worker, build: BuildEngine
    ) -> None:
        self.library = library
        self._bases = bases
        self._worker = worker
        self._build = build

    async def create(self, concept: Concept, pictures: Sequence[bytes], leash: Leash) -> str:
        """Adds a concept, rebuilds the probes of every base model, and swaps the engines.

        A concept for which no probes can be built is taken out again.

        Returns:
            The new digest of the library.

        Raises:
            NoDecisionError: CONCEPT_EXISTS, CONCEPT_PICTURES_INVALID, REQUEST_INVALID, or
                whatever `Worker.submit` raises.
        """

        def work() -> str:
            self.library.add(concept, pictures)
            try:
                return self._rebuild(leash.report)
            except BaseException:
                self.library.remove(concept.concept_id)
                raise

        return await self._run(work, leash)

    async def remove(self, concept_id: str, leash: Leash) -> str:
        """Removes a concept, rebuilds and swaps as `create` does.

        When the rebuild fails, audits go on with the old probes, which are the stricter ones.

        Returns:
            The new digest of the library.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, or whatever `Worker.submit` raises.
        """

        def work() -> str:
            self.library.remove(concept_id)
            return self._rebuild(leash.report)

        return await self._run(work, leash)

    async def _run(self, work: Callable[[], str], leash: Leash) -> str:
        # Shielded: a change that has begun is finished, whether or not its caller still waits.
        running = asyncio.ensure_future(self._worker.submit(work, leash))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            leash.cancel()
            running.add_done_callback(_log_outcome)
            raise

    def _rebuild(self, report: Report) -> str:
        if self.library.forbidden:
            swapped = [
                serve_base(one.base, self.library, self._build, report)
                for one in self._bases.served
            ]
        else:
            # Nothing to build; the gate refuses audits over an empty library.
            swapped = [
                ServedBase(one.name, one.base, one.engine, self.library.digest, frozenset())
                for one in self._bases.served
            ]
        self._bases.swap(swapped)
        return self.library.digest


def _log_outcome(running: asyncio.Future[str]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        _log.warning("a change of the library ended after its caller had gone: %s", error)
