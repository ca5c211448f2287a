"""The stages after intake: measure, judge, record. Each takes the time it spent down."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import replace
from datetime import UTC, datetime
from weakref import WeakSet

from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import ENGINE_VERSION, CoverageEvidence, Evidence
from loragate_server.config.findings import FindingsSection
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.case import Case
from loragate_server.gate.job import Sharing
from loragate_server.gate.measuring import Question, ReadAdapter, first_looks, measured
from loragate_server.gate.request import GateRequest
from loragate_server.gate.tickets import Ticket
from loragate_server.gate.worker import Worker, draining
from loragate_server.intake.loader_rules.names import LOOPS_BELOW_0, TAKES_TOO_LONG
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision
from loragate_server.policy.known import KnownUse, apply_known
from loragate_server.policy.lineage import Kin, apply_lineage
from loragate_server.policy.listed import decide_listed
from loragate_server.policy.policy import Policy
from loragate_server.policy.review import Ruling, apply_rulings
from loragate_server.policy.shortened import shortened
from loragate_server.progress import Leash
from loragate_server.record.basis import AskedAdapter, AskedStrength, Basis
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Verdict
from loragate_server.tracing.tracer import note, stage, trace_id

_log = logging.getLogger(__name__)

NOT_AUDITED = (("not_audited", "An adapter is on the deny list, so none was audited."),)
"""What evidence says where the deny list decided."""


class Pipeline:
    """Takes a case through audit, policy and record."""

    def __init__(
        self,
        *,
        bases: BaseRegistry,
        worker: Worker,
        read: ReadAdapter,
        recorder: Recorder,
        findings: FindingsSection,
    ) -> None:
        self._bases = bases
        self._worker = worker
        self._read = read
        self._recorder = recorder
        self._findings = findings
        # One thread: the decision log is one file, and its order is the order of decisions.
        self._record_pool = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._closed = False
        self._tried: WeakSet[AuditEngine] = WeakSet()
        self._trying: asyncio.Future[None] | None = None

    def listed(
        self,
        policy: Policy,
        case: Case,
        served: ServedBase,
        twins: Sequence[tuple[str, ...]],
        now: datetime,
    ) -> Decision | None:
        """The decision over a case with an adapter on the deny list, which needs no audit.

        Args:
            policy: whose list it is.
            case: the question.
            served: the base model that it names.
            twins: of each file, those that are ruled out and hold the same weights.
            now: by which the policy's lists lapse.
        """
        evidence = with_twins(_unaudited(case, served), twins)
        if not decide_listed(policy, evidence.adapters, now).denied:
            return None
        return decide(policy, evidence, now=now)

    async def measure(
        self,
        policy: Policy,
        case: Case,
        leash: Leash,
        times_s: dict[str, float],
        ticket: Ticket | None = None,
    ) -> Evidence:
        """Reads the adapters and audits them, on the worker's thread.

        Args:
            policy: says how early an audit may stop.
            case: the question.
            leash: of whoever waits.
            times_s: takes what each stage took.
            ticket: the place in the worker's queue, where it was taken before.

        Raises:
            NoDecisionError: whatever the worker, the reader or the engine refuses.
        """
        queued = time.monotonic()
        leash.report("queued", 0.0)
        note("loragate.adapter.sha256", tuple(file.sha256 for file in case.files))

        served = self._bases.get(case.request.base_model)
        question = Question(self._bases, self._read, case, policy, leash, times_s, queued)

        def alone() -> Evidence:
            return measured(question.look())

        sharing = None
        # Alone every other use is a piece of its own, between which deadlines are looked at.
        engine = served.engine
        if engine.looks_first and case.is_plain:
            alike = (served.name, case.restricted_to, policy.screen_miss_rate)
            sharing = Sharing(
                alike, case.size_bytes, question.look, first_looks, lambda: engine.knows_sizes
            )
            if self._worker.depth and not engine.knows_sizes:
                self._try_sizes(engine)
        return await self._worker.submit(alone, leash, ticket=ticket, sharing=sharing)

    def _try_sizes(self, engine: AuditEngine) -> None:
        """Has an engine find out what may begin together, once somebody waits."""
        if engine in self._tried:
            return
        self._tried.add(engine)
        trying = self._worker.submit(engine.try_sizes, Leash(), background=True)
        self._trying = asyncio.ensure_future(trying)
        self._trying.add_done_callback(_log_untried)

    def judge(
        self,
        policy: Policy,
        evidence: Evidence,
        basis: Basis,
        leash: Leash,
        times_s: dict[str, float],
    ) -> Decision:
        """Applies the policy, then what is on record, and then what people have said.

        Of very many concepts, the decision tells those that matter one by one.
        """
        leash.report("policy", 0.0)
        began = time.monotonic()
        with stage("policy"):
            every = decided(policy, evidence, basis)
            decision = shortened(every, self._findings.most, self._findings.above_score)
        times_s["policy"] = time.monotonic() - began
        return decision

    async def record(
        self,
        decision: Decision,
        request: GateRequest,
        basis: Basis,
        leash: Leash,
        times_s: dict[str, float],
        learn: Callable[[Verdict], None],
    ) -> Verdict:
        """Writes the decision down. Once begun it is finished, whether or not its caller waits.

        `learn` is told of it on the event loop, before any caller is, and even when all have gone:
        what stands blocked on record counts from then on.

        Raises:
            NoDecisionError: DECISION_LOG_UNAVAILABLE, DATABASE_UNAVAILABLE, DISK_FULL or
                SIGNING_UNAVAILABLE; DRAINING after `close`.
        """
        leash.check()
        leash.report("record", 0.0)
        began = time.monotonic()
        context = copy_context()
        names = tuple(one.shown_name for one in request.adapters)
        caller = replace(request.caller, trace_id=trace_id(), adapter_names=names)

        def work() -> Verdict:
            return context.run(
                self._recorder.record,
                decision,
                caller,
                stage_times_s=dict(times_s),
                dry_run=request.dry_run,
                basis=basis,
            )

        if self._closed:
            raise draining()
        running = asyncio.get_running_loop().run_in_executor(self._record_pool, work)
        try:
            with stage("record"):
                verdict = await asyncio.shield(running)
        except asyncio.CancelledError:
            running.add_done_callback(lambda done: _end_alone(done, learn))
            raise
        finally:
            del running  # else its error would hold this frame, and this frame the error
        learn(verdict)
        spent_s = time.monotonic() - began
        return replace(verdict, stage_times_s={**verdict.stage_times_s, "record": spent_s})

    async def close(self) -> None:
        """Waits for decisions that are being written; takes no more."""
        self._closed = True
        await asyncio.to_thread(self._record_pool.shutdown, wait=True)


def decided(policy: Policy, evidence: Evidence, basis: Basis) -> Decision:
    """The policy's decision, then what is on record, and then what people have said."""
    decision = apply_known(decide(policy, evidence, now=basis.judged_at), basis.known)
    decision = apply_lineage(decision, basis.kin, policy.lineage)
    return apply_rulings(decision, basis.rulings, basis.judged_at)


def basis_of(
    case: Case,
    loaders: Sequence[str],
    known: Sequence[KnownUse] = (),
    kin: Sequence[Kin] = (),
    rulings: Sequence[Ruling] = (),
) -> Basis:
    """What a question was and what is on record about its files, to be judged now."""
    adapters = tuple(
        AskedAdapter(
            tuple(AskedStrength(each.denoiser, each.text_encoder) for each in one.strengths),
            file.config_json,
        )
        for file, one in zip(case.files, case.request.adapters, strict=True)
    )
    now = datetime.now(UTC)
    return Basis(adapters, tuple(loaders), now, tuple(known), tuple(kin), tuple(rulings))


def with_twins(evidence: Evidence, twins: Sequence[tuple[str, ...]]) -> Evidence:
    """The evidence with what is ruled out at present and holds the same weights, per adapter."""
    adapters = tuple(
        replace(one, same_weights_as=others)
        for one, others in zip(evidence.adapters, twins, strict=True)
    )
    return replace(evidence, adapters=adapters)


def hangs_a_loader(evidence: Evidence) -> bool:
    """Whether a file would keep a loader busy for ever, or for too long to tell."""
    refused = (why for one in evidence.adapters for why in one.refused_by.values())
    doubted = (sentence for _, sentence in evidence.inconclusive)
    return LOOPS_BELOW_0 in refused or any(TAKES_TOO_LONG in sentence for sentence in doubted)


def _unaudited(case: Case, served: ServedBase) -> Evidence:
    """Evidence that names the adapters and says that nobody looked into them."""
    return Evidence(
        adapters=tuple(
            CoverageEvidence(
                sha256=file.sha256,
                size_bytes=file.size_bytes,
                format="",
                denoiser_strength=one.strength.denoiser,
                text_encoder_strength=one.strength.text_encoder,
                weight_tensors=0,
                mapped_tensors=0,
                matched_modules=0,
                unmapped=(),
                config_sha256=file.config_sha256,
                weights_sha256=file.weights_sha256,
                kind=one.kind,
            )
            for file, one in zip(case.files, case.request.adapters, strict=True)
        ),
        concepts=(),
        layers=(),
        inconclusive=NOT_AUDITED,
        base_model=served.name,
        base_digest=served.base.digest,
        library_digest=served.library_digest,
        kernel_backend="",
        engine_version=ENGINE_VERSION,
        neutral_count=0,
        stage_times_s={},
        restricted_to=case.restricted_to,
    )


def _log_untried(trying: asyncio.Future[None]) -> None:
    if not trying.cancelled() and (error := trying.exception()) is not None:
        _log.warning("audits that wait are done one by one: %s", error)


def _end_alone(running: asyncio.Future[Verdict], learn: Callable[[Verdict], None]) -> None:
    """What is left to do when a decision was written whose callers had all gone."""
    if running.cancelled():
        return
    if (error := running.exception()) is not None:
        _log.error("a decision whose caller had gone was not recorded: %s", error)
    else:
        learn(running.result())
