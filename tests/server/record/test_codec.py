"""A verdict survives being written down."""

import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.policy.decision import Decision, Mode, VerdictKind
from loragate_server.record.codec import decode_verdict, encode, to_json
from loragate_server.record.verdict import Caller, Verdict

NOW = datetime(2026, 6, 15, 12, 0, 0, 123456, tzinfo=UTC)


def verdict_of(decision: Decision, **changes: object) -> Verdict:
    verdict = Verdict("0" * 32, decision, Caller("s", "t", "r", "i"), NOW, NOW, {"queued": 0.1})
    return replace(verdict, **changes)


def again(verdict: Verdict) -> Verdict:
    return decode_verdict(json.loads(to_json(encode(verdict))))


@pytest.mark.parametrize("kind", list(VerdictKind))
@pytest.mark.parametrize("mode", list(Mode))
def test_a_verdict_is_the_same_after_writing_and_reading(decision, kind, mode) -> None:
    verdict = verdict_of(decision(kind, mode=mode), dry_run=True, cached=True)
    copy = again(verdict)
    assert copy == verdict
    assert isinstance(copy.decision.findings, tuple)
    assert isinstance(copy.decision.verdict, VerdictKind)
    assert copy.decided_at.tzinfo is not None


@given(
    st.floats(allow_nan=False),
    st.text(st.characters(codec=None)),
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=3),
)
def test_every_number_and_every_text_survives(decision, score, text, times) -> None:
    verdict = verdict_of(
        decision(score=score, text=text), caller=Caller(request_id=text), stage_times_s=times
    )
    assert again(verdict) == verdict


def test_a_number_that_is_no_number_survives(decision) -> None:
    copy = again(verdict_of(decision(score=math.nan)))
    assert math.isnan(copy.decision.findings[0].evidence.score)
    assert math.isnan(copy.decision.evidence.concepts[0].score)


def test_numbers_of_numpy_and_read_only_mappings_are_written_as_plain_ones(decision) -> None:
    times = MappingProxyType({"a": np.float32(0.5), "b": np.float64(0.25)})
    assert again(verdict_of(decision(), stage_times_s=times)).stage_times_s == {"a": 0.5, "b": 0.25}


def test_a_line_is_ascii_without_line_feeds(decision) -> None:
    line = to_json(encode(verdict_of(decision(text="a\nb\u2028c\x00d\ud800é"))))
    assert line.isascii()
    assert line.isprintable()


def test_an_unknown_version_or_a_damaged_payload_is_refused(decision) -> None:
    payload = encode(verdict_of(decision()))
    with pytest.raises(ValueError, match="version 2"):
        decode_verdict({**payload, "payload_version": 2})
    for name in ("decision", "decided_at", "caller", "payload_version"):
        with pytest.raises(ValueError):  # noqa: PT011 - pydantic's or ours
            decode_verdict({k: v for k, v in payload.items() if k != name})


def test_what_a_verdict_cannot_hold_is_refused(decision) -> None:
    with pytest.raises(TypeError, match="bytes"):
        encode(verdict_of(decision(), stage_times_s={"a": b"x"}))


def test_a_decision_from_before_there_were_traces_is_read(decision) -> None:
    verdict = verdict_of(decision(), caller=Caller("s", "t", "r", "i", trace_id="a" * 32))
    payload = encode(verdict)
    assert payload["caller"].pop("trace_id") == "a" * 32
    assert decode_verdict(payload).caller == Caller("s", "t", "r", "i")
    assert again(verdict) == verdict
