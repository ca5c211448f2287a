"""What users set for the calls of a client: how often they are made, and what they pass."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from loragate import AsyncAuditClient, AuditClient, Exhausted, RetryPolicy, Unavailable
from loragate.testing import FakeAuditServer
from tests.client.conftest import AnyClient

Makes = Callable[..., AnyClient]
QUICK = RetryPolicy(attempts=4, first_pause=0.01, longest_pause=0.02)


@pytest.mark.parametrize("attempts", [1, 2, 4])
@pytest.mark.parametrize("reason", ["NOT_READY", "QUEUE_FULL"])
async def test_a_question_is_asked_as_often_as_the_user_says(
    attempts: int, reason: str, make_client: Makes, fake: FakeAuditServer
) -> None:
    policy = RetryPolicy(attempts=attempts, first_pause=0.01, longest_pause=0.02)
    client = make_client(fake.target, on_unavailable="raise", retry=policy)
    fake.fail_next(reason, times=10, retry_after_s=0.01)
    with pytest.raises((Unavailable, Exhausted)):
        await client.audit(b"adapter")
    assert len(fake.calls) == attempts


@pytest.mark.parametrize("call", ["list", "concepts.list"])
async def test_lists_are_asked_for_again_as_well(
    call: str, make_client: Makes, fake: FakeAuditServer
) -> None:
    client = make_client(fake.target, retry=QUICK)
    fake.fail_next("NOT_READY", times=3)
    assert await client.collect(call) == []
    assert len(fake.calls) == 4


async def test_a_stream_is_begun_again(make_client: Makes, fake: FakeAuditServer) -> None:
    client = make_client(fake.target, on_unavailable="raise", retry=QUICK)
    fake.fail_next("NOT_READY", times=2)
    events = await client.collect("watch", b"adapter")
    assert events[-1].allowed
    assert len(fake.calls) == 3


async def test_what_must_not_be_sent_twice_is_not(
    make_client: Makes, fake: FakeAuditServer
) -> None:
    client = make_client(fake.target, retry=QUICK)
    fake.fail_next("NOT_READY", times=2)
    with pytest.raises(Unavailable):
        await client.call("concepts.delete", "x")
    assert len(fake.calls) == 1


async def test_a_refusal_that_another_attempt_cannot_change_is_final(
    make_client: Makes, fake: FakeAuditServer
) -> None:
    client = make_client(fake.target, on_unavailable="raise", retry=QUICK)
    fake.fail_next("FILE_TRUNCATED", times=2)
    with pytest.raises(Exception, match="FILE_TRUNCATED"):
        await client.audit(b"adapter")
    assert len(fake.calls) == 1


async def test_no_pause_outlasts_the_timeout(make_client: Makes, fake: FakeAuditServer) -> None:
    policy = RetryPolicy(attempts=20, first_pause=60, longest_pause=60)
    client = make_client(fake.target, on_unavailable="raise", retry=policy, timeout=5)
    fake.fail_next("NOT_READY", times=2)
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await client.audit(b"adapter")
    assert time.monotonic() - began < 30
    assert len(fake.calls) == 1


@pytest.mark.parametrize(
    "wrong",
    [{"attempts": 0}, {"attempts": 21}, {"first_pause": 0}, {"first_pause": float("nan")},
     {"longest_pause": float("inf")}, {"first_pause": 9, "longest_pause": 1}, {"factor": 0.5},
     {"factor": float("inf")}],
)  # fmt: skip
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


class Marking(grpc.UnaryUnaryClientInterceptor):
    """Adds metadata to every call of one message and one answer."""

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        changed = details._replace(metadata=[*(details.metadata or ()), ("x-mark", "seen")])
        return continuation(changed, request)


class AsyncMarking(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """The same for a client with an event loop."""

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        details.metadata.add("x-mark", "seen")
        return await continuation(details, request)


class Failing(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        raise RuntimeError("by the user's own mistake")


def interceptor(client: AnyClient | type) -> Any:
    return AsyncMarking() if client is AsyncAuditClient else Marking()


@pytest.mark.parametrize("kind", [AuditClient, AsyncAuditClient])
async def test_every_attempt_passes_the_interceptors(kind: type, fake: FakeAuditServer) -> None:
    options = {"interceptors": [interceptor(kind)], "retry": QUICK}
    client = AnyClient(kind(fake.target, **options))
    fake.fail_next("NOT_READY")
    assert (await client.audit(b"adapter")).allowed
    assert [call.metadata["x-mark"] for call in fake.calls] == ["seen", "seen"]
    await client.call("close")


def test_what_an_interceptor_raises_reaches_the_caller_and_allows_nothing(
    fake: FakeAuditServer,
) -> None:
    with (
        AuditClient(fake.target, interceptors=[Failing()], on_unavailable="allow") as client,
        pytest.raises(RuntimeError, match="own mistake"),
    ):
        client.audit(b"adapter")
    assert fake.calls == []


@pytest.mark.parametrize(
    ("kind", "wrong"), [(AuditClient, AsyncMarking()), (AsyncAuditClient, Marking()),
                        (AuditClient, "x")]
)  # fmt: skip
def test_an_interceptor_of_the_other_kind_is_refused_at_once(kind: type, wrong: object) -> None:
    with pytest.raises(ValueError, match="no interceptor of this client"):
        kind("127.0.0.1:1", interceptors=[wrong])
