"""Which measure a finding says decided, against which limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.policy.decide import decide
from loragate_server.policy.decision import Measured, MeasureKind, Remedy, VerdictKind
from loragate_server.policy.policy import Thresholds
from loragate_server.record.codec import decode_verdict, encode
from testkit import evidence as made

LIMITS = Thresholds(
    block_score=None,
    block_p_value=0.01,
    review_score=None,
    review_p_value=0.05,
    review_own_p_value=None,
    min_degree=20.0,
    block_degree_uncalibrated=30.0,
    on_block=VerdictKind.BLOCK,
    remedy=Remedy.QUARANTINE,
)
LIBRARY, OWN = MeasureKind.LIBRARY_P_VALUE, MeasureKind.OWN_P_VALUE


@pytest.mark.parametrize(
    ("family", "own", "degree", "limits", "verdict", "decided_by"),
    [
        (0.004, 0.001, 50, {}, "BLOCK", Measured(LIBRARY, 0.004, 0.01)),
        (0.03, 0.001, 50, {}, "REVIEW", Measured(LIBRARY, 0.03, 0.05)),
        (0.21, 0.049, 50, {}, "ALLOW", Measured(LIBRARY, 0.21, 0.05)),
        (0.21, 0.02, 50, {"review_own_p_value": 0.02}, "REVIEW", Measured(OWN, 0.02, 0.02)),
        (0.004, 0.001, 19, {}, "ALLOW", Measured(MeasureKind.DEGREE, 19, 20)),
        (0.9, 0.5, 50, {"block_score": 3.0}, "BLOCK", Measured(MeasureKind.SCORE, 3.5, 3.0)),
    ],
)
def test_a_finding_says_what_decided_and_at_which_limit(
    family: float,
    own: float,
    degree: float,
    limits: dict[str, Any],
    verdict: str,
    decided_by: Measured,
    policy: Any,
) -> None:
    rules = replace(policy(), defaults=replace(LIMITS, **limits))
    concept = made.concept(3.5, own, degree=degree, family_p_value=family)
    (finding,) = decide(rules, made.evidence(concept)).findings
    assert finding.verdict == VerdictKind(verdict)
    assert finding.decided_by == decided_by
    assert finding.library_p_value == family


def test_without_a_limit_or_a_number_nothing_is_said_to_have_decided(policy: Any) -> None:
    bare = replace(LIMITS, block_p_value=None, review_p_value=None)
    (free,) = decide(replace(policy(), defaults=bare), made.evidence(made.concept(9))).findings
    assert free.decided_by is None
    (broken,) = decide(policy(), made.evidence(made.concept(float("nan")))).findings
    assert broken.verdict is VerdictKind.INCONCLUSIVE
    assert broken.decided_by is None


def test_the_record_keeps_what_decided(policy: Any) -> None:
    recorded = made.verdict(decide(policy(), made.evidence(made.concept(7.0))))
    assert decode_verdict(encode(recorded)) == recorded
    assert recorded.decision.findings[0].decided_by is not None


_LEVEL = st.none() | st.floats(0, 1)
_SCORE = st.none() | st.floats(0.1, 10)


@given(
    limits=st.builds(
        Thresholds,
        _SCORE,
        _LEVEL,
        _SCORE,
        _LEVEL,
        _LEVEL,
        st.sampled_from([0.0, 10.0, 50.0]),
        st.just(0.0),
        st.just(VerdictKind.BLOCK),
        st.none(),
    ),
    score=st.floats(-3, 12),
    own=st.floats(0, 1),
    family=st.none() | st.floats(0, 1),
    degree=st.floats(0, 100),
)
def test_what_decided_has_reached_its_limit_exactly_where_the_policy_acts(
    limits: Thresholds, score: float, own: float, family: float | None, degree: float, policy: Any
) -> None:
    concept = made.concept(score, own, degree=degree, family_p_value=family)
    rules = replace(policy(), defaults=limits)
    (finding,) = decide(rules, made.evidence(concept)).findings
    by = finding.decided_by
    if finding.verdict is VerdictKind.ALLOW:
        assert by is None or not by.reached
    else:
        assert by is not None
        assert by.reached
        assert by.kind is not MeasureKind.DEGREE
