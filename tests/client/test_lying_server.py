"""A server that lies about one thing after the other, before every door that this package has."""

from __future__ import annotations

import hashlib
import struct
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loragate import AdapterReference, AuditClient, AuditError, Internal, Verdict
from loragate._question import Question, result_for
from loragate.cli import main
from loragate.testing import FakeAuditServer
from loragate.v1 import audit_pb2
from tests.client.doors import ASKED, BY_PLACE, DOORS, SMALL, gets_in
from tests.client.lies import LIES, Lie, lies


@pytest.fixture(scope="module")
def honest() -> Any:
    with FakeAuditServer() as server:
        yield server


@pytest.fixture
def liar(honest: FakeAuditServer) -> Any:
    yield honest
    honest.falsify = None


@pytest.mark.parametrize("door", sorted(DOORS))
def test_no_door_believes_a_lie_and_every_door_believes_the_truth(
    liar: FakeAuditServer, tmp_path: Path, door: str
) -> None:
    assert DOORS[door](liar.target, tmp_path)
    believed = []
    for name, lie in LIES.items():
        liar.falsify = lie
        if DOORS[door](liar.target, tmp_path):
            believed.append(name)
    assert believed == (["another adapter"] if door in BY_PLACE else [])
    liar.falsify = None
    assert DOORS[door](liar.target, tmp_path)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lie=lies())
def test_no_mixture_of_lies_is_believed(liar: FakeAuditServer, lie: Lie) -> None:
    liar.falsify = lie
    with AuditClient(liar.target, on_unavailable="allow", timeout=20) as client:
        assert not gets_in(lambda: client.audit(SMALL, **ASKED))


def _answer(strengths: tuple[float, float] = (1.0, 1.0), **fields: Any) -> audit_pb2.Verdict:
    """An honest verdict over `SMALL`, as a server that knows only the first fields gives it."""
    made = audit_pb2.Verdict(
        decision_id="d",
        verdict="VERDICT_KIND_ALLOW",
        would_be_verdict="VERDICT_KIND_ALLOW",
        mode="MODE_ENFORCE",
        base_model="tiny",
        adapters=[
            audit_pb2.AuditedAdapter(
                sha256=hashlib.sha256(SMALL).hexdigest(),
                denoiser_strength=strengths[0],
                text_encoder_strength=strengths[1],
            )
        ],
    )
    made.decided_at.FromDatetime(datetime.now(UTC))
    made.expires_at.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    made.MergeFrom(audit_pb2.Verdict(**fields))
    return made


def _question(clock_skew_s: float = 30.0, **options: Any) -> Question:
    known = {"strength", "text_encoder_strength", "expected_sha256"}
    own = {name: options.pop(name) for name in known & options.keys()}
    return Question.of([AdapterReference(data=SMALL, **own)], options, clock_skew_s=clock_skew_s)


@given(
    denoiser=st.floats(-100, 100),
    text_encoder=st.none() | st.floats(-100, 100),
    single=st.booleans(),
)
def test_every_strength_comes_back_equal_from_an_honest_server(
    denoiser: float, text_encoder: float | None, single: bool
) -> None:
    """Over the wire and back, and from servers that keep it in single precision."""
    question = _question(strength=denoiser, text_encoder_strength=text_encoder)
    sent = (denoiser, denoiser if text_encoder is None else text_encoder)
    if single:
        sent = tuple(audit_pb2.Progress(fraction=_rounded(one)).fraction for one in sent)
    wire = audit_pb2.Verdict.FromString(_answer(sent).SerializeToString())
    assert result_for(question, wire).allowed


def _rounded(number: float) -> float:
    (back,) = struct.unpack("f", struct.pack("f", number))
    return float(back)


def test_one_tenth_is_one_tenth(fake: FakeAuditServer) -> None:
    with AuditClient(fake.target, on_unavailable="raise") as client:
        assert client.audit(SMALL, strength=0.1, text_encoder_strength=0.3).allowed


def test_a_server_from_before_the_newer_fields_is_still_believed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loragate._question._told", set())
    for _ in range(2):
        result = result_for(_question(loader="comfyui"), _answer())
        assert result.allowed
        assert (result.binding, result.loaders, result.restricted_to) == (True, (), ())
    assert caplog.text.count("does not say for which loaders") == 1


def test_what_it_was_asked_tells_what_binds_where_a_server_does_not_say() -> None:
    restricted = result_for(_question(concept_ids=["a"]), _answer())
    dry = result_for(_question(dry_run=True), _answer(dry_run=True))
    for result in (restricted, dry):
        assert result.verdict is Verdict.ALLOW
        assert not result.binding
        assert not result.allowed
        assert not result.lets_in(review=True)
    assert restricted.restricted_to == ("a",)


def test_a_dry_run_that_became_binding_is_not_what_was_asked() -> None:
    with pytest.raises(Internal, match="Asked for was a dry run"):
        result_for(_question(dry_run=True), _answer())


def test_a_pilot_lets_in_and_says_that_it_is_one(caplog: pytest.LogCaptureFixture) -> None:
    answer = _answer(mode="MODE_PILOT", would_be_verdict="VERDICT_KIND_BLOCK")
    result = result_for(_question(), answer)
    assert result.allowed
    assert result.only_by_pilot
    assert not result_for(_question(), _answer()).only_by_pilot


def test_what_a_pilot_lets_in_is_counted_and_logged(
    liar: FakeAuditServer, caplog: pytest.LogCaptureFixture
) -> None:
    from loragate.fail_open import pilot_total

    caplog.set_level("INFO", "loragate")
    before = pilot_total()

    def pilot(verdict: audit_pb2.Verdict) -> None:
        verdict.mode, verdict.would_be_verdict = 2, 3

    liar.falsify = pilot
    with AuditClient(liar.target) as client:
        assert client.audit(SMALL).allowed
    assert pilot_total() == before + 1
    assert "enforcing, it says BLOCK" in caplog.text


@pytest.mark.parametrize(
    ("wrong_s", "skew_s", "fits"), [(20, 30, True), (40, 30, False), (5, 0, False)]
)
def test_clocks_may_differ_by_what_is_configured(wrong_s: int, skew_s: int, fits: bool) -> None:
    now = datetime.now(UTC)
    late = _answer()
    late.expires_at.FromDatetime(now - timedelta(seconds=wrong_s))
    late.decided_at.FromDatetime(now - timedelta(hours=1))
    early = _answer()
    early.decided_at.FromDatetime(now + timedelta(seconds=wrong_s))
    for answer in (late, early):
        question = _question(clock_skew_s=skew_s)
        if fits:
            assert result_for(question, answer, now=now).lets_in(now=now)
        else:
            with pytest.raises(Internal, match="Compare the clocks"):
                result_for(question, answer, now=now)


def test_a_result_that_is_kept_runs_out() -> None:
    result = result_for(_question(), _answer())
    end = result.expires_at
    assert end is not None
    assert result.lets_in(now=end + timedelta(seconds=29))
    assert not result.lets_in(now=end + timedelta(seconds=30))


def test_a_pinned_base_model_has_to_be_the_one() -> None:
    digests = audit_pb2.Digests(base_model="a" * 64)
    pinned = _question(expected_base_digest="A" * 64)
    assert result_for(pinned, _answer(digests=digests)).allowed
    for answer in (_answer(), _answer(digests=audit_pb2.Digests(base_model="b" * 64))):
        with pytest.raises(Internal, match="not the expected one"):
            result_for(pinned, answer)
    with pytest.raises(ValueError, match="sha256"):
        _question(expected_base_digest="tiny")


def test_bytes_that_the_caller_did_not_expect_are_not_allowed_by_anybody(
    fake: FakeAuditServer,
) -> None:
    with AuditClient(fake.target) as client, pytest.raises(Internal, match="a" * 64):
        client.audit(SMALL, expected_sha256="a" * 64)


def test_what_is_on_record_has_to_be_what_was_asked_for(liar: FakeAuditServer) -> None:
    with AuditClient(liar.target) as client:
        made = client.audit(SMALL)
        assert client.get(made.decision_id).allowed
        for name in ("a dry run", "not binding", "run out an hour ago", "never runs out"):
            liar.falsify = LIES[name]
            assert not client.get(made.decision_id).allowed, name
            assert main(["get", "--target", liar.target, made.decision_id]) == 4
            assert not next(client.list()).allowed, name
        for name in ("no decision id", "runs out beyond all calendars"):
            liar.falsify = LIES[name]
            with pytest.raises(AuditError):
                client.get(made.decision_id)
            with pytest.raises(AuditError):
                list(client.list())
        liar.falsify = LIES["another adapter"]
        with pytest.raises(AuditError, match="not asked for"):
            list(client.list(adapter_sha256=made.adapters[0].sha256))


NO_MESSAGES = {
    "no bytes": b"",
    "not protobuf": b"\xff\xff\xff",
    "cut short": b"\x0a\x50\x0a",
    "not UTF-8": b"\x0a\x04\x0a\x02\xff\xff",
    "over the client's limit": bytes(5 * 1024 * 1024),
}


class _Raw(grpc.GenericRpcHandler):
    """Answers every method with the same bytes."""

    def __init__(self) -> None:
        self.answer = b""

    def service(self, details: Any) -> Any:
        if details.method.endswith("AuditUpload"):
            return grpc.stream_unary_rpc_method_handler(
                lambda parts, _: (list(parts), self.answer)[1]
            )
        if details.method.endswith("WatchAudit"):
            return grpc.unary_stream_rpc_method_handler(lambda *_: iter([self.answer]))
        return grpc.unary_unary_rpc_method_handler(lambda *_: self.answer)

    def _after_all(self, parts: Any, context: Any) -> bytes:
        for _ in parts:
            pass
        return self.answer


@pytest.mark.parametrize("door", sorted(DOORS.keys() - {"diffusers"}))
def test_bytes_that_are_no_answer_let_nothing_in(
    door: str, tmp_path: Path, no_pauses: None
) -> None:
    server, raw = grpc.server(ThreadPoolExecutor(4)), _Raw()
    server.add_generic_rpc_handlers((raw,))
    target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        believed = []
        for name, answer in NO_MESSAGES.items():
            raw.answer = answer
            if DOORS[door](target, tmp_path):
                believed.append(name)
        assert believed == []
    finally:
        server.stop(None).wait()
