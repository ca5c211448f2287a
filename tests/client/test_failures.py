"""What happens when there is no decision, the same for both clients."""

from __future__ import annotations

import json
import pickle
import socket
import time
from typing import Any

import pytest

import loragate
from loragate import (
    AuditError,
    AuditResult,
    DeadlineExceeded,
    Exhausted,
    InvalidAdapter,
    Unavailable,
    Verdict,
    fail_open_total,
)
from loragate._service_config import channel_config
from loragate.errors import CLASS_OF_REASON, class_for
from loragate.reference import INLINE_LIMIT_BYTES
from loragate.testing._answers import code_of
from loragate.v1 import error_reason_pb2
from loragate_server.errors import ErrorReason
from loragate_server.rpc.errors import CODES

DATA = b"adapter"
LARGE = bytes(INLINE_LIMIT_BYTES + 1)
OPEN_TO_CHOICE = (Unavailable, Exhausted, DeadlineExceeded)
FILE_AND_REQUEST = range(1, 50)


@pytest.fixture
def dead_target() -> str:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{unused.getsockname()[1]}"


def names() -> list[str]:
    pairs = error_reason_pb2.ErrorReason.items()
    return [name.removeprefix("ERROR_REASON_") for name, number in pairs if number]


def test_every_reason_has_a_class_and_the_servers_code() -> None:
    assert set(CLASS_OF_REASON) == set(names())
    assert {reason: code_of(reason) for reason in names()} == {
        reason.value: CODES[reason] for reason in ErrorReason
    }


def test_nothing_that_a_file_or_a_request_can_provoke_leaves_a_choice() -> None:
    for name, number in error_reason_pb2.ErrorReason.items():
        if number in FILE_AND_REQUEST:
            reason = name.removeprefix("ERROR_REASON_")
            assert not issubclass(CLASS_OF_REASON[reason], OPEN_TO_CHOICE), reason
    assert not issubclass(CLASS_OF_REASON["AUDIT_FAILED"], OPEN_TO_CHOICE)


@pytest.mark.parametrize(
    ("code", "error"),
    [("UNAVAILABLE", Unavailable), ("INVALID_ARGUMENT", loragate.InvalidRequest)],
)
def test_a_reason_of_a_newer_server_falls_back_to_its_code(
    code: str, error: type[AuditError]
) -> None:
    assert class_for(code, "NEW_REASON") is error
    assert class_for("DATA_LOSS", "") is loragate.Internal


@pytest.mark.parametrize("reason", sorted(CLASS_OF_REASON))
async def test_every_reason_arrives_as_its_class(client: Any, fake: Any, reason: str) -> None:
    fake.fail_next(
        reason, times=5, message="It broke.", remedy="Mend it.", metadata={"found": "dust"}
    )
    with pytest.raises(AuditError) as caught:
        await client.call("get", "d")
    error = caught.value
    assert type(error) is CLASS_OF_REASON[reason]
    assert (error.reason, error.code) == (reason, code_of(reason).name)
    assert (error.message, error.metadata) == ("It broke.", {"found": "dust"})
    assert error.remedy.startswith("Mend it.")
    # Only the client knows by which of its settings it proves who it is.
    assert (error.remedy != "Mend it.") is (reason == "UNAUTHENTICATED")


async def test_an_error_prints_operation_code_reason_message_and_remedy(
    client: Any, fake: Any
) -> None:
    fake.fail_next(
        "STRENGTH_INVALID",
        message="9 is too strong.",
        remedy="Stay below 2.",
        metadata={"decision_id": "d1"},
        violations={"adapters[0].denoiser_strength": "9 > 2"},
    )
    with pytest.raises(AuditError) as caught:
        await client.audit(DATA)
    assert str(caught.value) == (
        "[audit] INVALID_ARGUMENT STRENGTH_INVALID: 9 is too strong. "
        "adapters[0].denoiser_strength: 9 > 2 Stay below 2. (decision d1)"
    )
    assert not caught.value.is_retryable
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


async def test_a_full_service_is_asked_three_times_and_says_when_to_return(
    client: Any, fake: Any
) -> None:
    fake.fail_next("QUEUE_FULL", times=9, retry_after_s=0.3)
    with pytest.raises(Exhausted) as caught:
        await client.audit(DATA)
    assert caught.value.retry_after_s == 0.3
    assert caught.value.is_retryable
    assert len(fake.calls) == 3
    ids = {call.request.caller.request_id for call in fake.calls}
    assert len(ids) == 1


async def test_a_service_that_comes_back_is_not_noticed(client: Any, fake: Any) -> None:
    fake.fail_next("DRAINING", times=2)
    assert (await client.audit(DATA)).allowed
    assert len(fake.calls) == 3


def test_a_server_that_closes_under_a_call_is_unavailable() -> None:
    assert class_for("CANCELLED", "") is Unavailable
    assert class_for("CANCELLED", "CANCELLED") is not Unavailable


async def test_watching_goes_on_with_a_service_that_comes_back(client: Any, fake: Any) -> None:
    fake.fail_next("DRAINING", times=2, method="WatchAudit")
    *_, result = await client.collect("watch", DATA)
    assert result.allowed
    assert [call.method for call in fake.calls] == ["WatchAudit"] * 3


async def test_watching_asks_a_full_service_three_times(client: Any, fake: Any) -> None:
    fake.fail_next("QUEUE_FULL", times=9, method="WatchAudit")
    with pytest.raises(Exhausted):
        await client.collect("watch", DATA)
    assert len(fake.calls) == 3


def test_grpc_retries_no_stream() -> None:
    config = json.loads(channel_config())
    retried = [
        name["method"]
        for method in config["methodConfig"]
        if "retryPolicy" in method
        for name in method["name"]
    ]
    assert "Audit" in retried
    assert "WatchAudit" not in retried


async def test_an_upload_is_sent_again_in_full(client: Any, fake: Any) -> None:
    fake.fail_next("NOT_READY", times=2, method="AuditUpload")
    assert (await client.audit(LARGE)).allowed
    assert [call.method for call in fake.calls] == ["Audit"] + ["AuditUpload"] * 3
    assert [len(call.data) for call in fake.calls[1:]] == [len(LARGE)] * 3


async def test_an_upload_waits_as_long_as_the_service_asks(client: Any, fake: Any) -> None:
    fake.fail_next("QUEUE_FULL", retry_after_s=1.2, method="AuditUpload")
    began = time.monotonic()
    assert (await client.audit(LARGE)).allowed
    assert time.monotonic() - began >= 1.2


async def test_an_upload_does_not_wait_beyond_its_deadline(client: Any, fake: Any) -> None:
    fake.fail_next("QUEUE_FULL", retry_after_s=60, method="AuditUpload")
    with pytest.raises(Exhausted):
        await client.audit(LARGE, timeout=10)
    assert [call.method for call in fake.calls] == ["Audit", "AuditUpload"]


async def test_reads_are_tried_five_times(client: Any, fake: Any) -> None:
    fake.fail_next("DATABASE_UNAVAILABLE", times=9)
    with pytest.raises(Unavailable):
        await client.call("get", "d")
    assert len(fake.calls) == 5


@pytest.mark.parametrize("reason", ["FILE_TRUNCATED", "AUDIT_FAILED", "UNAUTHENTICATED"])
async def test_a_refusal_is_not_repeated(client: Any, fake: Any, reason: str) -> None:
    fake.fail_next(reason)
    with pytest.raises(AuditError):
        await client.audit(DATA)
    assert len(fake.calls) == 1


async def test_a_new_concept_is_never_sent_twice(client: Any, fake: Any) -> None:
    fake.fail_next("NOT_READY")
    concept = loragate.Concept("a", "A", "brand", loragate.Severity.LOW)
    with pytest.raises(Unavailable):
        await client.call("concepts.create", concept, [b"picture"])
    assert len(fake.calls) == 1


async def test_a_slow_service_meets_the_deadline(client: Any, fake: Any) -> None:
    fake.delay_s = 4.0
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        await client.audit(DATA, timeout=0.2)
    assert time.monotonic() - began < 3.5
    assert caught.value.code == "DEADLINE_EXCEEDED"


async def test_a_deadline_may_be_longer_than_the_default(fake: Any, make_client: Any) -> None:
    from loragate import _service_config

    assert "timeout" not in _service_config.channel_config()
    fake.delay_s = 0.3
    assert (await make_client(fake.target, timeout=0.1).audit(DATA, timeout=5)).allowed


@pytest.mark.parametrize("data", [DATA, LARGE], ids=["inline", "upload"])
async def test_without_a_service_the_answer_is_block(
    make_client: Any, dead_target: str, data: bytes
) -> None:
    result = await make_client(dead_target, timeout=1).audit(data)
    assert isinstance(result, AuditResult)
    assert result.verdict is Verdict.BLOCK
    assert result.reasons[0].code == "service_unavailable"
    assert result.decision_id == ""
    assert not result.decided
    assert result.has_expired()
    assert isinstance(result.cause, OPEN_TO_CHOICE)


async def test_watching_without_a_service_ends_with_block(
    make_client: Any, dead_target: str
) -> None:
    (result,) = await make_client(dead_target, timeout=1).collect("watch", DATA)
    assert result.verdict is Verdict.BLOCK


async def test_failing_open_is_counted_and_logged(
    make_client: Any, dead_target: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = fail_open_total()
    result = await make_client(dead_target, timeout=1, on_unavailable="allow").audit(DATA)
    assert result.allowed
    assert result.audited_bytes == DATA
    assert not result.decided
    assert fail_open_total() == before + 1
    assert "letting the adapter in" in caplog.text


async def test_raising_is_a_choice_too(make_client: Any, dead_target: str) -> None:
    with pytest.raises((Unavailable, DeadlineExceeded)):
        await make_client(dead_target, timeout=1, on_unavailable="raise").audit(DATA)


@pytest.mark.parametrize("choice", ["block", "allow"])
async def test_a_bad_file_raises_whatever_the_choice(
    make_client: Any, fake: Any, choice: str
) -> None:
    fake.fail_next("PICKLE_REFUSED")
    with pytest.raises(InvalidAdapter):
        await make_client(fake.target, on_unavailable=choice).audit(DATA)


async def test_a_service_that_dies_in_the_middle_is_unavailable(
    make_client: Any, fake: Any
) -> None:
    client = make_client(fake.target, timeout=5)
    assert (await client.audit(DATA)).allowed
    fake.stop()
    assert (await client.audit(DATA)).verdict is Verdict.BLOCK
