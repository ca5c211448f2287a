"""Properties that hold for every policy and every evidence."""

import math
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.config.schema import EMBEDDED_POLICY
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decide import decide
from loragate_server.policy.decision import VerdictKind
from loragate_server.policy.parse import parse_policy

GRAVITY = list(VerdictKind)
DEFAULT = EMBEDDED_POLICY.read_bytes()

scores = st.floats(min_value=-50, max_value=50) | st.just(math.inf)
probabilities = st.floats(min_value=0, max_value=1)
measured = st.tuples(scores, probabilities, st.floats(min_value=0, max_value=100))


@st.composite
def policy_texts(draw: st.DrawFn) -> str:
    block, review = draw(st.floats(1, 30)), draw(st.floats(0.1, 1))
    p_block, p_review = draw(st.floats(0.001, 0.1)), draw(st.floats(0.1, 0.9))
    text = "version: 1\nmode: enforce\ndefaults:\n"
    text += f"  block_score: {block}\n  review_score: {block * review}\n"
    if draw(st.booleans()):
        text += f"  block_p_value: {p_block}\n  review_p_value: {p_review}\n"
    text += f"  min_degree: {draw(st.integers(0, 100))}\n"
    text += f"  on_block: {draw(st.sampled_from(['block', 'review']))}\n"
    text += f"when_inconclusive: {draw(st.sampled_from(['inconclusive', 'review', 'block']))}\n"
    if draw(st.booleans()):
        text += f"rules:\n  - {{name: r, concepts: [c0], block_score: {draw(st.floats(1, 30))}}}\n"
    return text


@settings(deadline=None)
@given(
    policy_texts(),
    st.lists(measured, min_size=1, max_size=6),
    st.data(),
    st.booleans(),
)
def test_a_higher_score_or_a_lower_p_value_never_gives_a_milder_verdict(
    concept, evidence, text: str, numbers, data: st.DataObject, unsure: bool
) -> None:
    policy = parse_policy(text.encode())
    before = [concept(s, p, degree=d, concept_id=f"c{i}") for i, (s, p, d) in enumerate(numbers)]
    index = data.draw(st.integers(0, len(before) - 1))
    old = before[index]
    worse = replace(
        old,
        score=old.score + data.draw(st.floats(0, 40)),
        p_value=old.p_value * data.draw(probabilities),
        degree=data.draw(st.floats(old.degree, 100)),
    )
    after = [*before[:index], worse, *before[index + 1 :]]
    doubts = (("x", "y"),) if unsure else ()
    mild = decide(policy, evidence(*before, inconclusive=doubts))
    grave = decide(policy, evidence(*after, inconclusive=doubts))
    assert GRAVITY.index(grave.verdict) >= GRAVITY.index(mild.verdict)
    if unsure:
        assert mild.verdict is not VerdictKind.ALLOW


@settings(deadline=None)
@given(policy_texts(), st.lists(measured, max_size=4), st.sampled_from(["score", "p_value"]))
def test_a_number_that_is_no_number_is_never_allowed(
    concept, evidence, text: str, numbers, field: str
) -> None:
    others = [concept(s, p, degree=d, concept_id=f"c{i}") for i, (s, p, d) in enumerate(numbers)]
    broken = replace(concept(0.0), **{field: math.nan})
    decision = decide(parse_policy(text.encode()), evidence(*others, broken))
    assert decision.verdict is not VerdictKind.ALLOW


def outcome(data: bytes, learned) -> VerdictKind | None:
    """The verdict on a flagrant adapter under a policy file; None if the file is refused."""
    try:
        policy = parse_policy(data)
    except NoDecisionError as error:
        assert error.reason is ErrorReason.POLICY_INVALID  # noqa: PT017
        return None
    return decide(policy, learned).would_be_verdict


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: t.encode("utf-8", "replace")))
def test_random_bytes_are_never_a_policy(concept, evidence, data: bytes) -> None:
    assert outcome(data, evidence(concept(1000.0, 0.0, degree=100.0))) is None


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_damaged_policy_is_refused_or_still_stops_a_flagrant_adapter(
    concept, evidence, data: st.DataObject
) -> None:
    lines = [line for line in DEFAULT.splitlines(True) if not line.startswith(b"#")]
    text = b"".join(lines)
    begin = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(begin, min(len(text), begin + 12)))
    filler = data.draw(
        st.binary(max_size=6) | st.text("\n :-[]{}#&*!0.~", max_size=6).map(str.encode)
    )
    damaged = text[:begin] + filler + text[end:]
    verdict = outcome(damaged, evidence(concept(math.inf, 0.0, degree=100.0)))
    assert verdict is not VerdictKind.ALLOW


def test_every_prefix_of_the_default_policy_is_refused_or_still_blocks(concept, evidence) -> None:
    flagrant = evidence(concept(1000.0, 0.0, degree=100.0))
    text = b"".join(ln for ln in DEFAULT.splitlines(True) if not ln.startswith((b"#", b"\n")))
    verdicts = {outcome(text[:end], flagrant) for end in range(len(text) + 1)}
    assert verdicts == {None, VerdictKind.BLOCK}
