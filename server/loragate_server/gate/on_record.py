"""`OnRecord`: the books of what was decided before, which answers depend on."""

from __future__ import annotations

from dataclasses import dataclass

from loragate_server.gate.bases import ServedBase
from loragate_server.gate.case import Case
from loragate_server.gate.key import AdapterKey, VerdictKey
from loragate_server.gate.lineage_book import LineageBook
from loragate_server.gate.request import GateRequest
from loragate_server.policy.policy import Policy
from loragate_server.record.known_book import KnownBook
from loragate_server.record.reviews.book import ReviewBook
from loragate_server.record.verdict import Verdict
from loragate_server.record.weights_book import WeightsBook


@dataclass(frozen=True)
class OnRecord:
    """What people have said, what stands blocked, its kin, and which files hold which weights."""

    reviews: ReviewBook
    known: KnownBook
    lineage: LineageBook
    weights: WeightsBook

    def learn(self, verdict: Verdict) -> None:
        """Takes in what was just recorded here."""
        self.known.learn(verdict)
        self.lineage.learn(verdict)

    async def key(
        self,
        request: GateRequest,
        adapters: tuple[AdapterKey, ...],
        policy: Policy,
        served: ServedBase,
    ) -> VerdictKey:
        """What an answer depends on, with what is on record now."""
        base_digest = served.base.digest
        # First, as it may wait: all else is looked up at one moment.
        lineage_ids = await self.lineage.decisions_about(adapters, base_digest)
        twins = sorted({twin for one in adapters for twin in self.weights.twins_of(one.sha256)})
        rulings = self.reviews.about([*(adapter.sha256 for adapter in adapters), *twins])
        ways = [one.ways for one in adapters]
        return VerdictKey(
            adapters=adapters,
            base_model=served.name,
            base_digest=base_digest,
            library_digest=served.library_digest,
            policy_digest=policy.digest,
            concept_ids=tuple(sorted(set(request.concept_ids))),
            dry_run=request.dry_run,
            review_ids=tuple(ruling.review_id for ruling in rulings),
            known_ids=tuple(one.decision_id for one in self.known.about(ways, base_digest)),
            lineage_ids=lineage_ids,
            twins=tuple(twins),
        )

    def twins_of(self, case: Case) -> list[tuple[str, ...]]:
        """Of each file, those that are ruled out and hold the same weights."""
        return [self.weights.twins_of(one.sha256, one.weights_sha256) for one in case.files]
