"""What lets an adapter in without a decision: that there is no service, and nothing else."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate import (
    AsyncAuditClient,
    AuditClient,
    AuditError,
    Exhausted,
    InvalidRequest,
    Verdict,
)
from loragate._status import DETAILS_KEY, error_from
from loragate.errors import CLASS_OF_REASON, class_for
from loragate.fail_open import is_unavailability, leaves_choice
from loragate.testing import FakeAuditServer
from loragate.testing._answers import code_of, trailing_metadata
from loragate.v1 import error_reason_pb2
from testkit.waiting import at_most
from tests.client.doors import DOORS, SMALL

CODES = [code.name for code in grpc.StatusCode]
REASONS = [
    "",
    "REASON_OF_A_NEWER_SERVER",
    *(name.removeprefix("ERROR_REASON_") for name, _ in error_reason_pb2.ErrorReason.items()),
]
NOT_THERE = {
    ("UNAVAILABLE", ""),
    ("UNAVAILABLE", "NOT_READY"),
    ("UNAVAILABLE", "DRAINING"),
    ("UNAVAILABLE", "DECISION_LOG_UNAVAILABLE"),
    ("UNAVAILABLE", "DATABASE_UNAVAILABLE"),
}
LATE = {("DEADLINE_EXCEEDED", ""), ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")}


def _error(code: str, reason: str) -> AuditError:
    return class_for(code, reason)("As the test wishes.", code=code, reason=reason)


def test_of_all_codes_with_all_reasons_only_the_absence_of_the_service_is_covered() -> None:
    pairs = list(itertools.product(CODES, REASONS))
    assert len(pairs) > 700
    own = {p for p in pairs if is_unavailability(_error(*p), sources_elsewhere=False)}
    elsewhere = {p for p in pairs if is_unavailability(_error(*p), sources_elsewhere=True)}
    assert own == NOT_THERE | LATE
    assert elsewhere == NOT_THERE
    assert all(leaves_choice(_error(*pair)) for pair in own)


class _Failure(grpc.RpcError):
    """A failed call with anything in it."""

    def __init__(self, code: Any, trailing: Any) -> None:
        super().__init__()
        self._code, self._trailing = code, trailing

    def code(self) -> Any:
        return self._code

    def details(self) -> str:
        return "As the test wishes."

    def trailing_metadata(self) -> Any:
        return self._trailing


@given(code=st.sampled_from(list(grpc.StatusCode)), details=st.binary(min_size=1, max_size=200))
def test_details_that_cannot_be_read_are_never_taken_for_an_absent_service(
    code: grpc.StatusCode, details: bytes
) -> None:
    from google.rpc import status_pb2

    error = error_from(_Failure(code, ((DETAILS_KEY, details),)), "audit")
    covered = is_unavailability(error, sources_elsewhere=False)
    try:
        readable = status_pb2.Status.FromString(details)
    except Exception:
        assert not covered
    else:
        # Readable, and without a reason of ours: then the code alone says what it is.
        assert covered == ((code.name, "") in NOT_THERE | LATE) or readable.details


@given(
    reason=st.sampled_from(sorted(CLASS_OF_REASON)),
    cut=st.integers(1, 400),
    code=st.sampled_from(list(grpc.StatusCode)),
)
def test_a_reason_that_was_cut_off_opens_nothing(
    reason: str, cut: int, code: grpc.StatusCode
) -> None:
    ((key, whole),) = trailing_metadata(
        reason, "m" * 20, remedy="", metadata={"a": "b"}, violations={}, retry_after_s=None
    )
    error = error_from(_Failure(code, ((key, whole[:-cut] or b"\xff"),)), "audit")
    if error.reason == "" and is_unavailability(error, sources_elsewhere=False):
        # What is left is a sound status whose only detail is gone entirely.
        from google.rpc import status_pb2

        assert not status_pb2.Status.FromString(whole[:-cut]).details


@pytest.mark.parametrize("reason", sorted(CLASS_OF_REASON))
def test_a_service_that_answers_is_there(
    fake: FakeAuditServer, reason: str, no_pauses: None
) -> None:
    fake.fail_next(reason, times=20)
    with AuditClient(fake.target, on_unavailable="allow", timeout=20) as client:
        try:
            allowed = client.audit(SMALL).allowed
        except AuditError:
            allowed = False
    assert allowed == ((code_of(reason).name, reason) in NOT_THERE | LATE)


@pytest.mark.parametrize("door", sorted(DOORS.keys() - {"comfyui path", "comfyui tensors"}))
@pytest.mark.parametrize("reason", ["FILE_TOO_LARGE", "BYTE_BUDGET_EXHAUSTED", "SHA256_MISMATCH"])
def test_a_refused_file_gets_through_no_door(
    fake: FakeAuditServer, tmp_path: Path, door: str, reason: str, no_pauses: None
) -> None:
    fake.fail_next(reason, times=100)
    assert not DOORS[door](fake.target, tmp_path)


def test_a_late_answer_about_bytes_is_covered_and_one_about_a_place_is_not(
    fake: FakeAuditServer,
) -> None:
    fake.delay_s = 1.0
    with AuditClient(fake.target, on_unavailable="allow", timeout=0.2) as client:
        assert client.audit(SMALL).allowed
        for place in ("slow.safetensors", "https://slow.example/style.safetensors"):
            result = client.audit(place)
            assert result.verdict is Verdict.BLOCK
            assert not result.decided
        assert not client.audit([SMALL, "slow.safetensors"]).allowed


@contextmanager
def _serving(audit: Callable[[Any, Any], Any], port: int = 0) -> Iterator[str]:
    """A server whose method Audit is this function, at this port or any free one."""
    handlers = grpc.method_handlers_generic_handler(
        "loragate.v1.AuditService", {"Audit": grpc.unary_unary_rpc_method_handler(audit)}
    )
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_a_refusal_is_not_forgotten_when_the_next_attempt_is_late() -> None:
    """The file is too large for the budget; asked again, the service takes its time."""
    calls = []
    over = threading.Event()

    def audit(request: Any, context: Any) -> Any:
        calls.append(request)
        if len(calls) > 1:
            over.wait(10)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "No room for so many bytes.")

    with _serving(audit) as target:
        with AuditClient(target, on_unavailable="allow", timeout=2) as client:
            result = client.audit(SMALL)
        over.set()
    assert len(calls) > 1
    assert not result.allowed
    assert isinstance(result.cause, Exhausted)


def _refuse(request: Any, context: Any) -> None:
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Not this one.")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("client_class", [AuditClient, AsyncAuditClient])
def test_what_another_client_found_absent_is_looked_for_anew(client_class: type) -> None:
    """The service comes up; clients that asked too early wait before they connect again."""

    async def done(result: Any) -> Any:
        return await result if isawaitable(result) else result

    async def find() -> None:
        early, late = (
            client_class(f"127.0.0.1:{port}", on_unavailable="allow", timeout=20) for _ in range(2)
        )
        assert (await done(early.audit(SMALL))).allowed
        await asyncio.sleep(1)
        with _serving(_refuse, port), pytest.raises(InvalidRequest):
            await done(late.audit(SMALL))
        for client in (early, late):
            await done(client.close())

    port = _free_port()
    asyncio.run(find())


def test_a_service_that_is_back_is_found_within_a_second() -> None:
    port = _free_port()
    with AuditClient(f"127.0.0.1:{port}", on_unavailable="allow", timeout=20) as client:
        for _ in range(6):  # each could make the wait for the next connection longer
            assert client.audit(SMALL).allowed
            time.sleep(0.5)
        with _serving(_refuse, port):
            time.sleep(at_most(0.5))
            with pytest.raises(InvalidRequest):
                client.audit(SMALL)


@pytest.mark.parametrize("timeout_s", [0.7, 1.2, 20])
def test_an_answer_over_the_limit_of_the_client_is_no_absence(timeout_s: float) -> None:
    with (
        _serving(lambda *_: bytes(5 * 1024 * 1024)) as target,
        AuditClient(target, on_unavailable="allow", timeout=timeout_s) as client,
    ):
        result = client.audit(SMALL)
    assert not result.allowed
    assert result.cause is not None
    assert result.cause.code == "RESOURCE_EXHAUSTED"
