"""Reviews: what a person has said about adapters that an audit only suspected.

A review is about a `Subject`: these files, with these configurations and strengths, on this base
model, suspected of these concepts. An approval covers no more than that. A rejection covers the
files wherever they are used, because a person has seen what is in them, and other files with the
same weights: metadata does not make another adapter of what was rejected, but may make more of
what was approved.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property

from loragate_server.audit.evidence import CoverageEvidence, Evidence
from loragate_server.policy.decision import NOTES, Decision, Reason, VerdictKind
from loragate_server.policy.overrule import overruled

APPROVED_CODE, REJECTED_CODE = "review_approved", "review_rejected"


@dataclass(frozen=True, order=True)
class ReviewedAdapter:
    """One adapter as it was used when it was reviewed; strengths are multiples of full strength."""

    sha256: str
    config_sha256: str
    denoiser_strength: float
    text_encoder_strength: float


@dataclass(frozen=True)
class Subject:
    """What a review is about.

    Attributes:
        adapters: sorted; all that were to be active together.
        concept_ids: sorted; the concepts that the adapters were suspected of.
    """

    adapters: tuple[ReviewedAdapter, ...]
    base_digest: str
    concept_ids: tuple[str, ...]

    @cached_property
    def key(self) -> str:
        """Lower-case hexadecimal sha256 that equal subjects share."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def sha256s(self) -> frozenset[str]:
        """Digests of the files."""
        return frozenset(adapter.sha256 for adapter in self.adapters)


@dataclass(frozen=True)
class Ruling:
    """The outcome of a review that is in force.

    Attributes:
        review_id: of the event that settled it.
        approved: else rejected.
        reviewers: who has settled it, in the order in which they did.
        reason: of the last of them.
        expires_at: when an approval lapses, timezone-aware; None for a rejection.
    """

    review_id: str
    subject: Subject
    approved: bool
    reviewers: tuple[str, ...]
    reason: str
    expires_at: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether it has not lapsed at `now`, timezone-aware."""
        return self.expires_at is None or now < self.expires_at


def subject_of(decision: Decision) -> Subject | None:
    """What a person would review about a decision; None where there is nothing to review.

    Only a decision that says REVIEW because concepts are suspected can be reviewed: what was not
    measured cannot be vouched for by looking at it.
    """
    suspected = {
        finding.evidence.concept_id
        for finding in decision.findings
        if finding.verdict is VerdictKind.REVIEW
    }
    if decision.would_be_verdict is not VerdictKind.REVIEW or not suspected:
        return None
    if any(reason.code not in _REVIEWABLE for reason in decision.reasons):
        return None
    adapters = _reviewed_together(decision.evidence)
    if adapters is None:
        return None
    return Subject(adapters, decision.evidence.base_digest, tuple(sorted(suspected)))


_REVIEWABLE = frozenset({"concept_suspected", "concept_learned"}) | NOTES
"""Reasons of a REVIEW that a person can settle; `concept_learned` with `on_block: review`."""


def apply_rulings(decision: Decision, rulings: Iterable[Ruling], now: datetime) -> Decision:
    """The decision after what people have said about its adapters.

    A rejection blocks whatever the audit says, also files that have but the weights of what was
    rejected; an approval lets through a REVIEW that it covers and nothing else, so that it never
    outweighs a BLOCK or an audit that cannot vouch.

    Args:
        decision: as the policy made it.
        rulings: about any of its adapters; those that have lapsed do not count.
        now: timezone-aware.
    """
    active = [ruling for ruling in rulings if ruling.in_force(now)]
    rejections = [
        (one, there)
        for one in active
        if not one.approved and (there := _standing_for(one.subject, decision.evidence.adapters))
    ]
    if rejections:
        reasons = [
            _reason(REJECTED_CODE, f"rejected {_rejected(there)}", one) for one, there in rejections
        ]
        return overruled(decision, VerdictKind.BLOCK, reasons, decision.ttl_s)
    subject = subject_of(decision)
    covering = [one for one in active if one.approved and subject and _covers(one.subject, subject)]
    if not covering:
        return decision
    lasting = max(covering, key=_end)
    ttl_s = min(decision.ttl_s, (_end(lasting) - now).total_seconds())
    return overruled(
        decision, VerdictKind.ALLOW, [_reason(APPROVED_CODE, "approved this", lasting)], ttl_s
    )


def _reviewed_together(evidence: Evidence) -> tuple[ReviewedAdapter, ...] | None:
    """The adapters at the strengths that were judged, sorted; None where none can stand for all.

    One that is used at several strengths is reviewed at the highest, which covers the others. Of
    several together each has one strength and none may be left out: what they do otherwise was
    judged as well, and nobody could say that an approval is about it.
    """
    used: dict[int, set[tuple[float, float]]] = {
        number: {(one.denoiser_strength, one.text_encoder_strength)}
        for number, one in enumerate(evidence.adapters)
    }
    for use in evidence.uses:
        for one in use.adapters:
            used[one.adapter].add((one.denoiser_strength, one.text_encoder_strength))
    if len(evidence.adapters) == 1:
        denoiser, text_encoder = (_widest(each) for each in zip(*used[0], strict=True))
        if denoiser is None or text_encoder is None or (denoiser, text_encoder) not in used[0]:
            return None  # the two highest together were never judged
        own = _reviewed(evidence.adapters[0])
        return (replace(own, denoiser_strength=denoiser, text_encoder_strength=text_encoder),)
    if any(len(each) > 1 for each in used.values()) or any(o.optional for o in evidence.adapters):
        return None
    return tuple(sorted(map(_reviewed, evidence.adapters)))


def _widest(strengths: Collection[float]) -> float | None:
    """The strength of which all are parts; None where they point both ways."""
    low, high = min(strengths), max(strengths)
    if low < 0 < high:
        return None
    return high if high > 0 else low


def _reviewed(adapter: CoverageEvidence) -> ReviewedAdapter:
    return ReviewedAdapter(
        adapter.sha256,
        adapter.config_sha256,
        adapter.denoiser_strength,
        adapter.text_encoder_strength,
    )


def _covers(approved: Subject, asked: Subject) -> bool:
    """Whether an approval speaks about what is asked.

    One adapter may be used more weakly than it was approved. Of several, one that is weaker may
    uncover what it had masked, so their strengths have to be the same.
    """
    if approved.base_digest != asked.base_digest:
        return False
    if not set(asked.concept_ids) <= set(approved.concept_ids):
        return False
    if len(approved.adapters) != 1 or len(asked.adapters) != 1:
        return approved.adapters == asked.adapters
    [seen], [used] = approved.adapters, asked.adapters
    return (
        (seen.sha256, seen.config_sha256) == (used.sha256, used.config_sha256)
        and _within(used.denoiser_strength, seen.denoiser_strength)
        and _within(used.text_encoder_strength, seen.text_encoder_strength)
    )


def _within(strength: float, limit: float) -> bool:
    return 0 <= strength <= limit or limit <= strength <= 0


def _standing_for(subject: Subject, adapters: Sequence[CoverageEvidence]) -> Mapping[str, str]:
    """Of each file that was rejected with others, the adapter that is it; empty if one is missing.

    That is the file itself, or one with the same weights, and for each an adapter of its own: else
    a file that is fine alone would be ruled out by having been rejected beside its copy.
    """
    stands: dict[int, str] = {}

    def place(rejected: str, tried: set[int]) -> bool:
        """Finds an adapter for one, and others for those that had it (an augmenting path)."""
        own = [number for number, one in enumerate(adapters) if one.sha256 == rejected]
        twins = [number for number, one in enumerate(adapters) if rejected in one.same_weights_as]
        for number in (*own, *twins):
            if number not in tried:
                tried.add(number)
                if number not in stands or place(stands[number], tried):
                    stands[number] = rejected
                    return True
        return False

    if not all(place(rejected, set()) for rejected in sorted(subject.sha256s)):
        return {}
    return {rejected: adapters[number].sha256 for number, rejected in stands.items()}


def _rejected(there: Mapping[str, str]) -> str:
    """What was rejected: the files themselves, or others of which these have the weights."""
    others = [
        f"{own[:12]} has the weights of {sha256[:12]}"
        for sha256, own in sorted(there.items())
        if own != sha256
    ]
    return f"this under another digest ({', '.join(others)})" if others else "this"


def _end(ruling: Ruling) -> datetime:
    # An approval without an end would never have been recorded; one is not believed.
    if ruling.expires_at is None:
        raise ValueError(f"the approval {ruling.review_id} has no end")
    return ruling.expires_at


def _reason(code: str, what: str, ruling: Ruling) -> Reason:
    until = f" until {ruling.expires_at:%Y-%m-%d %H:%M} UTC" if ruling.expires_at else ""
    people = " and ".join(ruling.reviewers)
    return Reason(code, f"{people} {what}{until}: {ruling.reason}")
