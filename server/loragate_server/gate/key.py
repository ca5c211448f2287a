"""The verdict key: everything that an answer depends on, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, replace

from loragate_server.adapter.reference import Kind, Strength
from loragate_server.audit.evidence import ENGINE_VERSION
from loragate_server.policy.decision import Decision
from loragate_server.policy.review import ReviewedAdapter


@dataclass(frozen=True)
class AdapterKey:
    """Identity of one adapter as it will be used.

    `config_sha256` covers the `adapter_config.json` beside the weights, which sets scales and so
    changes what the same weights do; empty where there is none.

    Attributes:
        strengths: every one at which it may be used, the first one first.
        optional: whether the image server may leave it out.
        kind: what it was sent as.
    """

    sha256: str
    config_sha256: str
    strengths: tuple[Strength, ...]
    optional: bool = False
    kind: Kind = "lora"

    @property
    def ways(self) -> tuple[ReviewedAdapter, ...]:
        """Each way in which it may be used, as the record knows it."""
        return tuple(
            ReviewedAdapter(self.sha256, self.config_sha256, each.denoiser, each.text_encoder)
            for each in self.strengths
        )


@dataclass(frozen=True)
class VerdictKey:
    """Two requests with equal keys get equal verdicts, up to id, time and caller.

    Attributes:
        adapters: in the order of the request, in which the answer names them.
        concept_ids: sorted, without repetition; empty for the whole library.
        review_ids: sorted; the reviews in force about any of the adapters.
        known_ids: sorted; the decisions that had blocked some of the adapters.
        lineage_ids: sorted; the decisions that had blocked what they come from, and whether they
            are copies of it.
        twins: sorted; files that are ruled out and hold the weights of any of them.
    """

    adapters: tuple[AdapterKey, ...]
    base_model: str
    base_digest: str
    library_digest: str
    policy_digest: str
    concept_ids: tuple[str, ...]
    dry_run: bool
    engine_version: str = ENGINE_VERSION
    review_ids: tuple[str, ...] = ()
    known_ids: tuple[str, ...] = ()
    lineage_ids: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()


def used_key(key: VerdictKey, decision: Decision) -> VerdictKey:
    """The key with the digests of what a decision was really made with."""
    evidence = decision.evidence
    return replace(
        key,
        base_digest=evidence.base_digest,
        library_digest=evidence.library_digest,
        policy_digest=decision.policy_digest,
        engine_version=evidence.engine_version,
    )
