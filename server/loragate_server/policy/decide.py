"""`decide`: the one place where evidence becomes a decision.

The decision is the gravest of what the concepts, the evidence as a whole and the deny list say:
ALLOW < REVIEW < INCONCLUSIVE < BLOCK. Numbers that are not numbers never help an adapter.
Thresholds on p-values are compared with Holm-adjusted values over all concepts of the evidence,
because asking about a hundred concepts at a level of 1 % each would block most harmless adapters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

from loragate_server.audit.evidence import ConceptEvidence, Evidence
from loragate_server.audit.packed import whole
from loragate_server.policy.decision import (
    GRAVITY,
    Decision,
    Finding,
    MeasureKind,
    Mode,
    Reason,
    Remedy,
    VerdictKind,
)
from loragate_server.policy.holm import holm_adjusted
from loragate_server.policy.listed import decide_listed
from loragate_server.policy.measure import at_block, at_review, nearest
from loragate_server.policy.policy import Policy, Thresholds
from loragate_server.policy.sentences import (
    clear_sentences,
    concept_sentences,
    invalid_sentences,
    uncalibrated_sentence,
)

_REMEDY_GRAVITY = {remedy: rank for rank, remedy in enumerate(Remedy)}

_Weighed = tuple[VerdictKind, Reason]


def gravest(verdicts: Iterable[VerdictKind]) -> VerdictKind:
    """The gravest of some verdicts; ALLOW of none."""
    return max(verdicts, key=GRAVITY.__getitem__, default=VerdictKind.ALLOW)


def decide(policy: Policy, evidence: Evidence, *, now: datetime | None = None) -> Decision:
    """Applies the policy.

    An adapter on the deny list blocks its whole set, and so do its weights in another file. If
    every adapter is on the allow list, the findings are shown but do not count; evidence that is
    inconclusive still does, because an entry vouches for what a file has learned, not for a file
    that was not understood.

    Args:
        policy: the policy in force.
        evidence: what the audit measured; p-values are raw.
        now: timezone-aware time for expiry dates; None means the present.

    Raises:
        ValueError: concepts are packed in the evidence, and cannot be read.
    """
    now = now or datetime.now(UTC)
    evidence = whole(evidence)  # nothing is decided over some of the concepts
    listing = decide_listed(policy, evidence.adapters, now)
    judged = _judge_all(policy, evidence)
    weighed = _doubts(policy, evidence, concepts_needed=not (listing.denied or listing.allowed))
    if not listing.allowed:
        weighed += [entry for _, entry in judged if entry is not None]
    listed_as = VerdictKind.BLOCK if listing.denied else VerdictKind.ALLOW
    weighed += [(listed_as, reason) for reason in listing.reasons]
    would_be = gravest(verdict for verdict, _ in weighed)

    findings = sorted((finding for finding, _ in judged), key=_by_score)
    counted = () if listing.allowed else tuple(findings)
    remedies = [f.remedy for f in counted]
    if listing.denied or would_be in (VerdictKind.REVIEW, VerdictKind.INCONCLUSIVE):
        remedies.append(Remedy.QUARANTINE)
    if would_be is VerdictKind.BLOCK and not any(r is not Remedy.NONE for r in remedies):
        remedies.append(Remedy.QUARANTINE)
    reasons = [r for _, r in sorted(weighed, key=lambda entry: -GRAVITY[entry[0]])]
    if would_be is VerdictKind.ALLOW and not listing.allowed:
        nearest = findings[0].evidence if findings else None
        clear = Reason("no_concept_learned", *clear_sentences(nearest, len(findings)))
        reasons.insert(0, clear)
    if not listing.allowed:
        reasons += _uncalibrated(evidence)
    if evidence.restricted_to:
        reasons.append(_restricted(evidence))
    if policy.mode is Mode.PILOT:
        reasons.append(
            Reason("pilot_mode", f"The policy only observes; enforcing, it says {would_be.value}.")
        )
    ttl_s = policy.verdict_ttl_s
    if listing.ends_at is not None:
        ttl_s = min(ttl_s, (listing.ends_at - now).total_seconds())
    return Decision(
        verdict=VerdictKind.ALLOW if policy.mode is Mode.PILOT else would_be,
        would_be_verdict=would_be,
        mode=policy.mode,
        remedy=max(remedies, key=_REMEDY_GRAVITY.__getitem__, default=Remedy.NONE),
        reasons=tuple(reasons),
        findings=tuple(findings),
        evidence=evidence,
        policy_digest=policy.digest,
        ttl_s=ttl_s,
    )


def _doubts(policy: Policy, evidence: Evidence, *, concepts_needed: bool) -> list[_Weighed]:
    """Why the evidence as a whole cannot vouch for the adapters.

    What the audit ought to have said itself is checked again here: an audit that forgets to say
    that it understood nothing must not become an ALLOW.
    """
    doubts = [Reason(code, message) for code, message in evidence.inconclusive]
    if not doubts:
        doubts += _unspoken_doubts(evidence, concepts_needed)
    return [(policy.when_inconclusive, reason) for reason in doubts]


def _unspoken_doubts(evidence: Evidence, concepts_needed: bool) -> Iterable[Reason]:
    if not evidence.adapters:
        yield Reason("nothing_audited", "The evidence is about no adapter at all.")
    for adapter in evidence.adapters:
        short = adapter.sha256[:12]
        if adapter.unmapped:
            yield Reason(
                "unmapped_keys",
                f"{len(adapter.unmapped)} tensors of adapter {short} match no layer.",
            )
        if adapter.matched_modules < 1:
            yield Reason("no_layer_matched", f"Adapter {short} changes no layer of the base model.")
        if adapter.kind == "embedding":
            yield Reason("embedding_uncalibrated", f"Nothing vouches for embedding {short}.")
    if concepts_needed and not evidence.concepts:
        yield Reason("no_concepts_audited", "The adapters were compared with no concept.")
    elif concepts_needed and evidence.neutral_count < 1:
        yield Reason("no_neutral_bank", "The scores were compared with no neutral concept.")


def _judge_all(policy: Policy, evidence: Evidence) -> list[tuple[Finding, _Weighed | None]]:
    concepts = evidence.concepts
    adjusted = holm_adjusted([concept.p_value for concept in concepts])
    return [
        # a calibrated p-value already speaks for all concepts at once
        _judge(policy, evidence, c, p if c.family_p_value is None else c.family_p_value)
        for c, p in zip(concepts, adjusted, strict=True)
    ]


def _judge(
    policy: Policy, evidence: Evidence, concept: ConceptEvidence, adjusted_p: float
) -> tuple[Finding, _Weighed | None]:
    """The verdict on one concept, and its reason unless it is ALLOW."""
    say = partial(concept_sentences, evidence, concept, adjusted_p)
    thresholds = policy.thresholds_for(concept)
    # Written so that a degree that is not a number counts as above the floor.
    above_floor = not concept.degree < thresholds.min_degree
    blocks = at_block(concept, adjusted_p, thresholds) if above_floor else None
    suspects = at_review(concept, adjusted_p, thresholds) if above_floor else None
    measured = blocks or suspects or nearest(concept, adjusted_p, thresholds)
    verdict, remedy, reason = VerdictKind.ALLOW, Remedy.NONE, None
    if blocks and _too_slight(concept, thresholds):
        verdict, remedy = VerdictKind.REVIEW, Remedy.QUARANTINE
        floor = f"Uncalibrated, it is blocked at a degree of {_floor(thresholds):g} or more."
        reason = Reason("concept_suspected", *say("may have learned", floor))
    elif blocks:
        verdict = thresholds.on_block
        remedy = thresholds.remedy or policy.remedy_for(concept.severity)
        reason = Reason("concept_learned", *say("have learned"))
    elif suspects and suspects.kind is MeasureKind.OWN_P_VALUE:
        verdict, remedy = VerdictKind.REVIEW, Remedy.QUARANTINE
        own = f"For this concept alone the p-value is {concept.p_value:.3g}."
        reason = Reason("concept_suspected", *say("may have learned something of", own))
    elif suspects:
        verdict, remedy = VerdictKind.REVIEW, Remedy.QUARANTINE
        reason = Reason("concept_suspected", *say("may have learned"))
    invalid = _invalid_measure(concept)
    if invalid and GRAVITY[verdict] < GRAVITY[policy.when_inconclusive]:
        verdict, remedy = policy.when_inconclusive, Remedy.QUARANTINE
        reason = Reason("measurement_invalid", *invalid_sentences(concept, invalid))
        measured = None
    finding = Finding(concept, verdict, remedy, measured, adjusted_p)
    return finding, (verdict, reason) if reason else None


def _too_slight(concept: ConceptEvidence, thresholds: Thresholds) -> bool:
    """Whether a concept that no calibration speaks for is below the degree that blocks it."""
    return concept.family_p_value is None and concept.degree < _floor(thresholds)


def _floor(thresholds: Thresholds) -> float:
    return max(thresholds.min_degree, thresholds.block_degree_uncalibrated)


def _invalid_measure(concept: ConceptEvidence) -> str:
    """What is wrong with the numbers; empty when nothing is. A score of +inf is very high."""
    if math.isnan(concept.score) or concept.score == -math.inf:
        return f"its score is {concept.score}"
    if not 0.0 <= concept.p_value <= 1.0:
        return f"its p-value is {concept.p_value}"
    if concept.family_p_value is not None and not 0.0 <= concept.family_p_value <= 1.0:
        return f"its p-value over the library is {concept.family_p_value}"
    if math.isnan(concept.degree):
        return "its degree is nan"
    return ""


def _by_score(finding: Finding) -> tuple[float, str]:
    score = finding.evidence.score
    return (math.inf if math.isnan(score) else -score, finding.evidence.concept_id)


def _uncalibrated(evidence: Evidence) -> Iterable[Reason]:
    """Says of which concepts no calibration speaks, where there are any."""
    unknown = [one for one in evidence.concepts if one.family_p_value is None]
    if unknown:
        yield Reason("uncalibrated", uncalibrated_sentence(unknown, len(evidence.concepts)))


def _restricted(evidence: Evidence) -> Reason:
    asked = len(evidence.restricted_to)
    return Reason(
        "restricted_question",
        f"Only {asked} {'concept was' if asked == 1 else 'concepts were'} asked about, so no load "
        "may rest on this.",
    )
