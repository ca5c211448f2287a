"""What a person says about suspected adapters, and how far it reaches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.audit.evidence import UsedAdapter, UseEvidence
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Decision, Mode, Remedy, VerdictKind
from loragate_server.policy.review import (
    ReviewedAdapter,
    Ruling,
    Subject,
    apply_rulings,
    subject_of,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
SUSPICIOUS, LEARNED, CLEAN = 5.0, 7.0, 0.5

Make = Callable[..., Any]


@pytest.fixture(scope="session")
def decided(policy: Make, evidence: Make, concept: Make, adapter: Make) -> Make:
    """A decision about one adapter with a score for each concept."""

    def make(
        *scores: float, extra: str = "", adapters: tuple[Any, ...] = (), **changes: Any
    ) -> Decision:
        concepts = [
            concept(score, concept_id=f"concept-{number}", p_value=0.5)
            for number, score in enumerate(scores)
        ]
        measured = evidence(*concepts, adapters=adapters or (adapter(),), **changes)
        return decide(policy(extra), measured, now=NOW)

    return make


def approval(subject: Subject | None, **changes: Any) -> Ruling:
    assert subject is not None
    made = Ruling("r1", subject, True, ("alice",), "looked at it", NOW + timedelta(days=30))
    return replace(made, **changes)


def rejection(subject: Subject | None, **changes: Any) -> Ruling:
    return approval(subject, approved=False, expires_at=None, **changes)


def test_an_approved_suspicion_is_allowed_and_says_who_and_until_when(decided: Make) -> None:
    suspected = decided(SUSPICIOUS)
    assert suspected.verdict is VerdictKind.REVIEW
    allowed = apply_rulings(suspected, [approval(subject_of(suspected))], NOW)
    assert allowed.verdict is allowed.would_be_verdict is VerdictKind.ALLOW
    assert allowed.remedy is Remedy.NONE
    assert allowed.reasons[0].code == "review_approved"
    assert (
        allowed.reasons[0].message == "alice approved this until 2026-12-01 12:00 UTC: looked at it"
    )
    assert [reason.code for reason in allowed.reasons[1:]] == ["concept_suspected", "uncalibrated"]
    assert allowed.findings == suspected.findings


def test_a_rejected_adapter_is_blocked_whatever_is_measured(decided: Make) -> None:
    subject = subject_of(decided(SUSPICIOUS))
    for scores in ((SUSPICIOUS,), (CLEAN,), (LEARNED,)):
        blocked = apply_rulings(decided(*scores), [rejection(subject)], NOW)
        assert blocked.verdict is VerdictKind.BLOCK
        assert blocked.reasons[0].code == "review_rejected"
        assert blocked.remedy is not Remedy.NONE
        assert "no_concept_learned" not in {reason.code for reason in blocked.reasons}


def test_a_rejection_holds_beside_other_adapters_but_not_for_others(
    decided: Make, adapter: Make
) -> None:
    ruling = rejection(subject_of(decided(SUSPICIOUS)))
    both = (adapter(), adapter("e" * 64))
    assert apply_rulings(decided(CLEAN, adapters=both), [ruling], NOW).verdict is VerdictKind.BLOCK
    other = decided(CLEAN, adapters=(adapter("e" * 64),))
    assert apply_rulings(other, [ruling], NOW) == other


def test_what_was_rejected_beside_its_copy_is_not_rejected_alone(
    decided: Make, adapter: Make
) -> None:
    """Else anybody could rule a file out, by asking about it together with a copy of it."""
    copy = adapter("e" * 64)
    pair = subject_of(decided(SUSPICIOUS, adapters=(adapter(), copy)))
    alone = replace(adapter(), same_weights_as=(copy.sha256,))
    clean = decided(CLEAN, adapters=(alone,))
    assert apply_rulings(clean, [rejection(pair)], NOW) == clean
    again = (alone, replace(copy, same_weights_as=(alone.sha256,)))
    blocked = apply_rulings(decided(CLEAN, adapters=again), [rejection(pair)], NOW)
    assert blocked.verdict is VerdictKind.BLOCK


def test_two_that_were_rejected_together_are_known_in_whatever_bytes_they_come(
    decided: Make, adapter: Make
) -> None:
    """Files with the same weights stand for each other, each for one of them."""
    first, second = adapter(), adapter("e" * 64)
    ruling = rejection(subject_of(decided(SUSPICIOUS, adapters=(first, second))))
    both = (first.sha256, second.sha256)
    saved = [replace(adapter(letter * 64), same_weights_as=both) for letter in "12"]
    twin = replace(first, same_weights_as=(second.sha256,))
    for pair in ((*saved,), (saved[0], twin), (twin, saved[0]), (saved[1], second)):
        after = apply_rulings(decided(CLEAN, adapters=pair), [ruling], NOW)
        assert after.verdict is VerdictKind.BLOCK
    alone = decided(CLEAN, adapters=(saved[0], adapter("3" * 64)))
    assert apply_rulings(alone, [ruling], NOW) == alone


def test_a_rejection_outweighs_an_approval(decided: Make) -> None:
    suspected = decided(SUSPICIOUS)
    subject = subject_of(suspected)
    rulings = [approval(subject), rejection(subject, review_id="r2")]
    assert apply_rulings(suspected, rulings, NOW).verdict is VerdictKind.BLOCK


@pytest.mark.parametrize(
    ("scores", "changes"),
    [
        ((LEARNED,), {}),
        ((SUSPICIOUS,), {"inconclusive": (("unmapped_keys", "Two tensors match no layer."),)}),
        ((SUSPICIOUS, SUSPICIOUS), {}),
        ((SUSPICIOUS,), {"base_digest": "f" * 64}),
    ],
    ids=["learned", "inconclusive", "a further concept", "another base model"],
)
def test_an_approval_covers_nothing_that_was_not_looked_at(
    decided: Make, scores: tuple[float, ...], changes: dict[str, Any]
) -> None:
    ruling = approval(subject_of(decided(SUSPICIOUS)))
    later = decided(*scores, **changes)
    assert apply_rulings(later, [ruling], NOW) == later
    assert later.verdict is not VerdictKind.ALLOW


def test_fewer_suspicions_than_were_approved_are_covered(decided: Make) -> None:
    ruling = approval(subject_of(decided(SUSPICIOUS, SUSPICIOUS)))
    assert apply_rulings(decided(SUSPICIOUS, CLEAN), [ruling], NOW).verdict is VerdictKind.ALLOW


@pytest.mark.parametrize(
    ("changes", "covered"),
    [
        ({"denoiser_strength": 0.5}, True),
        ({"denoiser_strength": 0.0, "text_encoder_strength": 0.0}, True),
        ({"denoiser_strength": 1.01}, False),
        ({"denoiser_strength": -0.5}, False),
        ({"denoiser_strength": float("nan")}, False),
        ({"text_encoder_strength": 1.5}, False),
        ({"config_sha256": "9" * 64}, False),
        ({"sha256": "9" * 64}, False),
    ],
)
def test_an_approval_holds_for_weaker_use_of_the_same_file_only(
    decided: Make, adapter: Make, changes: dict[str, Any], covered: bool
) -> None:
    ruling = approval(subject_of(decided(SUSPICIOUS)))
    later = decided(SUSPICIOUS, adapters=(replace(adapter(), **changes),))
    expected = VerdictKind.ALLOW if covered else VerdictKind.REVIEW
    assert apply_rulings(later, [ruling], NOW).verdict is expected


def test_adapters_approved_together_are_approved_at_these_strengths_alone(
    decided: Make, adapter: Make
) -> None:
    first, second = adapter(), adapter("e" * 64)
    ruling = approval(subject_of(decided(SUSPICIOUS, adapters=(first, second))))
    same = decided(SUSPICIOUS, adapters=(second, first))
    assert apply_rulings(same, [ruling], NOW).verdict is VerdictKind.ALLOW
    for others in (
        (first, replace(second, denoiser_strength=0.5)),
        (first,),
        (first, second, adapter("f" * 64)),
    ):
        later = decided(SUSPICIOUS, adapters=others)
        assert apply_rulings(later, [ruling], NOW) == later


def test_an_approval_ends_and_shortens_the_life_of_the_verdict(decided: Make) -> None:
    suspected = decided(SUSPICIOUS)
    ruling = approval(subject_of(suspected), expires_at=NOW + timedelta(seconds=60))
    assert apply_rulings(suspected, [ruling], NOW).ttl_s == 60
    assert apply_rulings(suspected, [ruling], NOW + timedelta(seconds=60)) == suspected


def test_a_pilot_answers_allow_and_records_what_the_review_would_have_done(decided: Make) -> None:
    suspected = replace(decided(SUSPICIOUS), mode=Mode.PILOT, verdict=VerdictKind.ALLOW)
    subject = subject_of(suspected)
    blocked = apply_rulings(suspected, [rejection(subject)], NOW)
    assert (blocked.verdict, blocked.would_be_verdict) == (VerdictKind.ALLOW, VerdictKind.BLOCK)
    assert blocked.reasons[-1].message == "The policy only observes; enforcing, it says BLOCK."


def test_only_a_suspicion_can_be_reviewed(decided: Make) -> None:
    assert subject_of(decided(CLEAN)) is None
    assert subject_of(decided(LEARNED)) is None
    doubtful = decided(CLEAN, extra="when_inconclusive: review\n", inconclusive=(("x", "Y."),))
    assert doubtful.verdict is VerdictKind.REVIEW
    assert subject_of(doubtful) is None
    both = decided(SUSPICIOUS, extra="when_inconclusive: review\n", inconclusive=(("x", "Y."),))
    assert subject_of(both) is None


def test_a_block_that_the_policy_softens_to_review_can_be_reviewed(
    policy: Make, evidence: Make, concept: Make
) -> None:
    softer = policy(
        base="version: 1\nmode: enforce\ndefaults:\n  block_score: 6\n  on_block: review\n"
    )
    decision = decide(softer, evidence(concept(LEARNED)), now=NOW)
    subject = subject_of(decision)
    assert subject is not None
    assert subject.concept_ids == ("cat",)


_adapters = st.builds(
    ReviewedAdapter,
    st.sampled_from(["a" * 64, "b" * 64]),
    st.sampled_from(["", "c" * 64]),
    st.floats(-2, 2),
    st.floats(-2, 2),
)
_subjects = st.builds(
    Subject,
    st.lists(_adapters, min_size=1, max_size=2).map(lambda several: tuple(sorted(several))),
    st.sampled_from(["b" * 64, "d" * 64]),
    st.lists(st.sampled_from(["concept-0", "concept-1"]), max_size=2, unique=True).map(
        lambda several: tuple(sorted(several))
    ),
)


@given(subject=_subjects, score=st.sampled_from([CLEAN, SUSPICIOUS, LEARNED]))
def test_no_approval_ever_lets_a_block_through_or_makes_a_verdict_graver(
    decided: Make, subject: Subject, score: float
) -> None:
    before = decided(score)
    after = apply_rulings(before, [approval(subject)], NOW)
    if before.verdict is VerdictKind.REVIEW:
        assert after.verdict in (VerdictKind.REVIEW, VerdictKind.ALLOW)
    else:
        assert after == before


@given(first=_subjects, second=_subjects)
def test_equal_subjects_and_only_those_share_a_key(first: Subject, second: Subject) -> None:
    assert (first.key == second.key) == (first == second)


def used(*ways: tuple[tuple[int, float], ...]) -> tuple[UseEvidence, ...]:
    """Uses of adapters by number, each at a strength of both parts."""
    return tuple(
        UseEvidence(tuple(UsedAdapter(number, at, at) for number, at in way), ()) for way in ways
    )


def test_an_approval_covers_no_further_strength_of_the_same_request(
    decided: Make, adapter: Make
) -> None:
    half = (adapter(denoiser_strength=0.5, text_encoder_strength=0.5),)
    weak = decided(SUSPICIOUS, adapters=half, uses=used([(0, 0.5)]))
    seen = approval(subject_of(weak))
    assert apply_rulings(weak, [seen], NOW).verdict is VerdictKind.ALLOW
    for more in (5.0, -5.0):
        strong = decided(SUSPICIOUS, adapters=half, uses=used([(0, 0.5)], [(0, more)]))
        assert apply_rulings(strong, [seen], NOW).verdict is VerdictKind.REVIEW
    both = decided(SUSPICIOUS, adapters=half, uses=used([(0, 0.5)], [(0, 5.0)]))
    reviewed = approval(subject_of(both))
    assert reviewed.subject.adapters[0].denoiser_strength == 5.0
    for one in (both, weak):
        assert apply_rulings(one, [reviewed], NOW).verdict is VerdictKind.ALLOW
    assert subject_of(strong) is None, "nobody can say which way was meant"
    crossed = (
        UseEvidence((UsedAdapter(0, 0.5, 1.0),), ()),
        UseEvidence((UsedAdapter(0, 1.0, 0.5),), ()),
    )
    assert subject_of(decided(SUSPICIOUS, adapters=half, uses=crossed)) is None, "(1, 1) is neither"


def test_an_approval_of_several_covers_none_that_may_be_left_out(
    decided: Make, adapter: Make
) -> None:
    one, two = adapter(), adapter(sha256="b" * 64)
    alone = ([(0, 1.0)], [(1, 1.0)])
    together = decided(SUSPICIOUS, adapters=(one, two), uses=used([(0, 1.0), (1, 1.0)], *alone))
    seen = approval(subject_of(together))
    assert apply_rulings(together, [seen], NOW).verdict is VerdictKind.ALLOW
    optional = replace(two, optional=True)
    for adapters, uses in (
        ((one, optional), used([(0, 1.0), (1, 1.0)], *alone)),
        ((one, two), used([(0, 1.0), (1, 1.0)], [(0, 1.0), (1, 3.0)], *alone)),
    ):
        other = decided(SUSPICIOUS, adapters=adapters, uses=uses)
        assert apply_rulings(other, [seen], NOW).verdict is VerdictKind.REVIEW
        assert subject_of(other) is None
