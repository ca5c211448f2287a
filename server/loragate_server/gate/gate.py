"""`Gate`: a question in, a recorded verdict out, or `NoDecisionError`. Nothing else leaves it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from loragate_server.adapter.reference import StoredFile
from loragate_server.config.findings import FindingsSection
from loragate_server.config.gate import GateSection
from loragate_server.gate.admission import admit_size
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.budget import ByteBudget
from loragate_server.gate.cache import VerdictCache
from loragate_server.gate.case import Case
from loragate_server.gate.deciding import Deciding
from loragate_server.gate.doorway import Doorway
from loragate_server.gate.flight import SharedLeash, SingleFlight
from loragate_server.gate.intake import IntakeDesk, UploadSession
from loragate_server.gate.key import AdapterKey, VerdictKey
from loragate_server.gate.lineage_book import LineageBook
from loragate_server.gate.measured import Measured, require_of
from loragate_server.gate.measuring import ReadAdapter
from loragate_server.gate.observer import GateObserver
from loragate_server.gate.on_record import OnRecord
from loragate_server.gate.pipeline import Pipeline
from loragate_server.gate.request import GateRequest
from loragate_server.gate.suspects import SUSPECTS_REMEMBERED, Suspects
from loragate_server.gate.tickets import Ticket
from loragate_server.gate.worker import Worker
from loragate_server.intake.fetch import Intake
from loragate_server.policy.policy import Policy
from loragate_server.policy.store import PolicyStore
from loragate_server.progress import Leash
from loragate_server.record.known_book import KnownBook
from loragate_server.record.recorder import Recorder
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.verdict import Verdict
from loragate_server.record.weights_book import WeightsBook


class Gate:
    """The one way through the house. Belongs to one event loop.

    Equal questions that are in flight share one audit, and equal questions later get the same
    verdict until it expires: a caller's own name is on record for the audit it started.
    """

    def __init__(
        self,
        *,
        settings: GateSection,
        intake: Intake,
        bases: BaseRegistry,
        policies: PolicyStore,
        recorder: Recorder,
        read: ReadAdapter,
        observer: GateObserver,
        reviews: ReviewBook,
        known: KnownBook,
        lineage: LineageBook,
        weights: WeightsBook,
        findings: FindingsSection | None = None,
    ) -> None:
        self.bases = bases
        self.worker = Worker(settings.queue_limit, observer, stuck_after_s=settings.stuck_after_s)
        self._intake = IntakeDesk(intake)
        self._on_record = OnRecord(reviews, known, lineage, weights)
        self._pipeline = Pipeline(
            bases=bases,
            worker=self.worker,
            read=read,
            recorder=recorder,
            findings=findings or FindingsSection(),
        )
        self._budget = ByteBudget(settings.byte_budget, observer)
        self._cache = VerdictCache(settings.verdict_cache_size, observer)
        self._flights: SingleFlight[VerdictKey, Verdict] = SingleFlight(observer.shared_flight)
        self._doorway = Doorway(observer)
        self._deciding = Deciding(
            bases=bases,
            policies=policies,
            on_record=self._on_record,
            pipeline=self._pipeline,
            suspects=Suspects(min(SUSPECTS_REMEMBERED, settings.verdict_cache_size)),
            cache=self._cache,
            observer=observer,
            loaders=intake.settings.loaders,
        )

    @property
    def draining(self) -> bool:
        """Whether new questions are refused."""
        return self._doorway.closed

    @property
    def ready(self) -> bool:
        """Whether a question could be answered now."""
        return not self._doorway.closed and self.bases.ready and self.worker.alive

    def require_intake(self) -> None:
        """Raises RuntimeError while no file can be read, as `IntakeDesk.require_free`."""
        self._intake.require_free()

    def require_room(self, asker: str, leash: Leash) -> None:
        """Refuses a question that comes with its bytes as `decide` would, before they are there.

        Args:
            asker: as `GateRequest.asker`.
            leash: of the question.

        Raises:
            NoDecisionError: QUEUE_FULL; DRAINING.
        """
        with self._doorway.counted():
            self._doorway.require_open()
            self.worker.tickets.require_room(asker, leash)

    async def decide(self, request: GateRequest, leash: Leash) -> Verdict:
        """Decides over adapters that the server reads itself or that came with the request.

        Raises:
            NoDecisionError: no decision exists.
        """
        return await self._doorway.answer(self._decide(request, leash), leash)

    async def decide_stored(
        self, request: GateRequest, stored: StoredFile, leash: Leash, *, intake_s: float
    ) -> Verdict:
        """Decides over one adapter whose bytes were uploaded; its reference has no source.

        An upload that `receive` let in before `drain` still gets its answer.

        Args:
            request: whose reference has no source.
            stored: what `UploadSession.finish` returned.
            leash: of the call.
            intake_s: `UploadSession.spent_s`.

        Raises:
            NoDecisionError: no decision exists.
        """
        return await self._doorway.answer(
            self._decide_stored(request, stored, leash, intake_s), leash
        )

    async def decide_measured(
        self, request: GateRequest, stored: StoredFile, measured: Measured, leash: Leash
    ) -> Verdict:
        """Decides over one adapter that was measured elsewhere, as if it had been measured here.

        Nothing is cached for it and none of the queue is taken: whoever measures thousands waits
        for each decision himself.

        Args:
            request: whose reference has no source.
            stored: what was measured.
            measured: by an engine with the base model and library that are served here.
            leash: of the caller.

        Raises:
            NoDecisionError: no decision exists; NOT_READY where it was measured of another file, on
                another base model, for another library or by another engine.
        """
        return await self._doorway.answer(
            self._decide_measured(request, stored, measured, leash), leash
        )

    @contextmanager
    def receive(
        self,
        request: GateRequest,
        declared_size_bytes: int,
        sha256: str,
        file_name: str,
        leash: Leash,
    ) -> Iterator[UploadSession]:
        """Takes in an upload for `decide_stored`; refuses before the first byte where it can.

        What was received is thrown away unless `UploadSession.finish` returned.

        Args:
            request: the question that follows.
            declared_size_bytes: of the file.
            sha256: of the file, as declared.
            file_name: as declared.
            leash: of the call; one whose turn would come too late is refused.

        Raises:
            NoDecisionError: as `decide` for what can be known from the header; FILE_TOO_LARGE,
                BYTE_BUDGET_EXHAUSTED, QUEUE_FULL.
        """
        with self._doorway.inside():
            self._doorway.require_open()
            policy, _ = self._deciding.admit(request, stored=True)
            admit_size(declared_size_bytes, policy)
            self.worker.tickets.require_room(request.asker, leash)
            self._budget.require_room(declared_size_bytes)
            with self._budget.hold() as held:
                session = self._intake.receive(declared_size_bytes, sha256, file_name, held.add)
                try:
                    yield session
                finally:
                    session.close()

    async def drain(self, timeout_s: float) -> bool:
        """Refuses new questions and waits for those in flight, at most `timeout_s`.

        Returns:
            Whether nothing is in flight any more.
        """
        return await self._doorway.drain(timeout_s)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Refuses what waits, and ends the threads."""
        self._doorway.closed = True
        await asyncio.to_thread(self.worker.close, timeout_s)
        await self._pipeline.close()
        self._intake.close()
        self._cache.clear()

    async def _decide(self, request: GateRequest, leash: Leash) -> Verdict:
        self._doorway.require_open()
        leash.check()
        policy, served = self._deciding.admit(request, stored=False)
        inline_bytes = request.inline_bytes
        key: VerdictKey | None = None
        if not inline_bytes:
            key = await self._known_key(request, policy, served, leash)
            if key is not None and (cached := self._cache.get(key)) is not None:
                return cached
        # Before anything is hashed, written or read, for in that an overload would be lost.
        with self._place(key, request, leash) as ticket, self._budget.hold(inline_bytes):
            began = time.monotonic()
            if inline_bytes:
                key = await self._known_key(request, policy, served, leash)
                if key is not None and (cached := self._cache.get(key)) is not None:
                    return cached
            leash.report("intake", 0.0)
            files = await self._intake.fetch(request.adapters, leash)
            case = Case(
                request, files, inline_bytes=inline_bytes, intake_s=time.monotonic() - began
            )
            again = key is not None
            return await self._decide_case(case, leash, policy, served, ticket, again=again)

    def _place(
        self, key: VerdictKey | None, request: GateRequest, leash: Leash
    ) -> AbstractContextManager[Ticket | None]:
        """A place in the queue; none is needed where an equal question has one."""
        if key is not None and key in self._flights:
            return nullcontext()
        return self.worker.tickets.one(request.asker, leash)

    async def _known_key(
        self, request: GateRequest, policy: Policy, served: ServedBase, leash: Leash
    ) -> VerdictKey | None:
        """What the question is known by, where no file has to be read for that."""
        known = await self._intake.known_digests(request.adapters, leash)
        if known is None:
            return None
        adapters = tuple(
            AdapterKey(sha256, "", one.strengths, one.optional, one.kind)
            for sha256, one in zip(known, request.adapters, strict=True)
        )
        return await self._on_record.key(request, adapters, policy, served)

    async def _decide_stored(
        self, request: GateRequest, stored: StoredFile, leash: Leash, intake_s: float
    ) -> Verdict:
        leash.check()
        policy, served = self._deciding.admit(request, stored=True)
        case = Case(request, (stored,), uploaded=True, intake_s=intake_s)
        with self.worker.tickets.one(request.asker, leash, paid=True) as ticket:
            return await self._decide_case(case, leash, policy, served, ticket)

    async def _decide_measured(
        self, request: GateRequest, stored: StoredFile, measured: Measured, leash: Leash
    ) -> Verdict:
        self._doorway.require_open()
        leash.check()
        policy, served = self._deciding.admit(request, stored=True)
        require_of(measured.evidence, stored, served)
        admit_size(stored.size_bytes, policy)
        self._on_record.weights.saw(stored.sha256, stored.weights_sha256)
        case = Case(request, (stored,), uploaded=True, intake_s=measured.times_s.get("intake", 0.0))
        key = await self._on_record.key(request, case.adapter_keys, policy, served)
        return await self._deciding.decide(case, key, leash, None, measured)

    async def _decide_case(
        self,
        case: Case,
        leash: Leash,
        policy: Policy,
        served: ServedBase,
        ticket: Ticket | None,
        *,
        again: bool = False,
    ) -> Verdict:
        for file in case.files:
            admit_size(file.size_bytes, policy)
            self._on_record.weights.saw(file.sha256, file.weights_sha256)
        key = await self._on_record.key(case.request, case.adapter_keys, policy, served)
        # Asked again after intake: an equal question may have been answered meanwhile.
        cached = self._cache.get(key, again=again)
        if cached is not None:
            return cached

        async def work(shared: SharedLeash) -> Verdict:
            # Bytes that came with the request are held by whoever sent them, until it is answered.
            held = self._budget.hold(max(0, case.size_bytes - case.inline_bytes))
            with held, nullcontext() if ticket is None else ticket.keep():
                return await self._deciding.decide(case, key, shared, ticket)

        if ticket is not None and key in self._flights:
            ticket.leave()  # the equal question has a place
        return await self._flights.run(key, work, leash)
