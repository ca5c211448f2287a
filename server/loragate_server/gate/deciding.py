"""`Deciding`: files that are here become a verdict on record, by what is known at the end."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import chain

from loragate_server.gate.admission import admit, admit_size
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.cache import VerdictCache
from loragate_server.gate.case import Case
from loragate_server.gate.key import VerdictKey, used_key
from loragate_server.gate.lineage_book import decisions_of
from loragate_server.gate.measured import Measured
from loragate_server.gate.observer import STAGES, GateObserver
from loragate_server.gate.on_record import OnRecord
from loragate_server.gate.pipeline import Pipeline, basis_of, hangs_a_loader, with_twins
from loragate_server.gate.request import GateRequest
from loragate_server.gate.suspects import Suspects
from loragate_server.gate.tickets import Ticket
from loragate_server.policy.decision import Decision
from loragate_server.policy.policy import Policy
from loragate_server.policy.store import PolicyStore
from loragate_server.progress import Leash
from loragate_server.record.basis import Basis
from loragate_server.record.verdict import Verdict


class Deciding:
    """Looks at the lists, measures where they say nothing, judges, records and remembers."""

    def __init__(
        self,
        *,
        bases: BaseRegistry,
        policies: PolicyStore,
        on_record: OnRecord,
        pipeline: Pipeline,
        suspects: Suspects,
        cache: VerdictCache,
        observer: GateObserver,
        loaders: tuple[str, ...],
    ) -> None:
        self._bases = bases
        self._policies = policies
        self._on_record = on_record
        self._pipeline = pipeline
        self._suspects = suspects
        self._cache = cache
        self._observer = observer
        self._loaders = loaders

    def admit(self, request: GateRequest, *, stored: bool) -> tuple[Policy, ServedBase]:
        """Policy and base model that the question may be asked of now.

        Raises:
            NoDecisionError: as `loragate_server.gate.admission.admit`.
        """
        served = self._bases.get(request.base_model)
        policy = self._policies.current
        admit(request, policy, served, stored=stored)
        return policy, served

    async def decide(
        self,
        case: Case,
        key: VerdictKey,
        leash: Leash,
        ticket: Ticket | None,
        measured: Measured | None = None,
    ) -> Verdict:
        """The verdict, recorded and remembered under what it depends on.

        Args:
            case: the files.
            key: what the question is known by.
            leash: of those who wait.
            ticket: the place in the queue.
            measured: what another process has measured of the files, in place of measuring here.

        Raises:
            NoDecisionError: no decision exists.
        """
        times_s = {"intake": case.intake_s}
        served, policy = self._bases.get(case.request.base_model), self._policies.current
        twins = self._on_record.twins_of(case)
        basis = basis_of(case, self._loaders)
        decision = self._pipeline.listed(policy, case, served, twins, basis.judged_at)
        listed, measured_by = decision is not None, policy.screen_miss_rate
        if decision is None:
            evidence = self._suspects.get(key, policy.screen_miss_rate)
            if measured is not None:
                evidence = measured.evidence
                times_s.update(measured.times_s)
            if evidence is None:
                evidence = await self._pipeline.measure(policy, case, leash, times_s, ticket)
                if hangs_a_loader(evidence):
                    self._observer.endless_file()
            measured_by = evidence.screen_miss_rate or policy.screen_miss_rate
            kin = await asyncio.to_thread(self._on_record.lineage.about, evidence)
            # Policy and library may have changed while the audit waited: the newest decide.
            policy, _ = self.admit(case.request, stored=case.uploaded)
            for file in case.files:
                admit_size(file.size_bytes, policy)
            twins = self._on_record.twins_of(case)
            evidence = with_twins(evidence, twins)
            rulings = self._on_record.reviews.about(
                [*(one.sha256 for one in case.files), *chain(*twins)]
            )
            known = self._on_record.known.about(
                [one.ways for one in case.adapter_keys], evidence.base_digest
            )
            basis = basis_of(case, self._loaders, known, kin, rulings)
            decision = self._pipeline.judge(policy, evidence, basis, leash, times_s)
            self._suspects.put(used_key(key, decision), measured_by, decision)
        verdict = await self._pipeline.record(
            decision, case.request, basis, leash, times_s, self._on_record.learn
        )
        self._tell(verdict)
        if not listed and measured_by != policy.screen_miss_rate:
            return verdict  # another policy has come meanwhile, by which the screen ends elsewhere
        self._cache.put(_final(key, decision, basis, twins, listed=listed), verdict)
        return verdict

    def _tell(self, verdict: Verdict) -> None:
        self._observer.recorded(verdict)
        for stage in STAGES:
            if stage in verdict.stage_times_s:
                self._observer.stage_seconds(stage, verdict.stage_times_s[stage])


def _final(
    key: VerdictKey,
    decision: Decision,
    basis: Basis,
    twins: list[tuple[str, ...]],
    *,
    listed: bool,
) -> VerdictKey:
    """The key by what was really used, so that no later question gets a stale answer."""
    final = replace(used_key(key, decision), twins=tuple(sorted(set(chain(*twins)))))
    if listed:  # what is on the deny list is denied whatever else is known of it
        return final
    return replace(
        final,
        review_ids=tuple(ruling.review_id for ruling in basis.rulings),
        known_ids=tuple(one.decision_id for one in basis.known),
        lineage_ids=decisions_of(basis.kin),
    )
