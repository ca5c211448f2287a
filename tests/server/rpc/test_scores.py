"""Measured numbers go to callers with the permission for them, and to nobody else."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from loragate.v1 import audit_pb2 as wire
from loragate.v1 import audit_pb2_grpc
from loragate_server.config.listen import ORDINARY, GrpcPort, Listen, Peer, Permission, Tls, Token
from loragate_server.policy.decision import Reason
from loragate_server.policy.reasons import REASON_CODES, told_without_numbers
from loragate_server.rpc.access import Access
from tests.server.rpc.front import MakeFront, files, front, house, post, tiny, until

__all__ = ["files", "front", "house", "post", "tiny", "until"]

SCORES = (0.37219, 5.37219, 9.37219)
"""Of an adapter that is allowed, of one that is suspected and of one that is blocked."""
TOLD = r"\b[059]\.37|1e-09"


def grant(name: str, *permissions: Permission) -> Token:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Token(name=name, sha256=digest, permissions=ORDINARY | set(permissions))


PORT = GrpcPort(
    listen=Listen(grpc="127.0.0.1:0"),
    tokens=(grant("image-api"), grant("research", Permission.SCORES)),
)


async def answers(here: Any, who: str) -> AsyncIterator[wire.Verdict]:
    """The same decision by every way on which a verdict goes out; the first one makes it."""
    stub = audit_pb2_grpc.AuditServiceStub(here.channel)  # type: ignore[no-untyped-call]
    told = {"metadata": (("authorization", f"Bearer {who}"),) if who else (), "timeout": 20}
    data = here.post.house.files(0)
    question = wire.AuditRequest(adapters=[wire.AdapterReference(inline_bytes=data)])
    first = (await stub.Audit(question, **told)).verdict
    yield first
    yield (await stub.Audit(question, **told)).verdict
    header = wire.UploadHeader(
        declared_size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    parts = [wire.AuditUploadRequest(header=header), wire.AuditUploadRequest(chunk=data)]
    yield (await stub.AuditUpload(iter(parts), **told)).verdict
    async for event in stub.WatchAudit(wire.WatchAuditRequest(audit=question), **told):
        if event.WhichOneof("event") == "verdict":
            yield event.verdict
    yield (await stub.GetAudit(wire.GetAuditRequest(decision_id=first.decision_id), **told)).verdict
    for one in (await stub.ListAudits(wire.ListAuditsRequest(), **told)).verdicts:
        yield one


def doubles(message: Message) -> Iterator[tuple[str, float]]:
    """Every floating-point number of a message, with its path."""
    for field, value in message.ListFields():
        for one in value if field.is_repeated else [value]:
            if isinstance(one, Message):
                yield from ((f"{field.name}.{path}", number) for path, number in doubles(one))
            elif isinstance(one, float):
                yield field.name, one


@pytest.mark.parametrize("score", SCORES)
async def test_without_the_permission_no_answer_holds_a_measured_number(
    front: MakeFront, score: float
) -> None:
    here = await front(PORT)
    here.post.house.engine.score = score
    seen = [one async for one in answers(here, "image-api")]
    assert len(seen) >= 6
    for verdict in seen:
        strengths = {"adapters.denoiser_strength", "adapters.text_encoder_strength"}
        assert {path for path, _ in doubles(verdict)} <= strengths
        assert not re.search(TOLD, str(verdict))
        assert [one.measures_withheld for one in verdict.findings] == [True, True]
        assert {one.concept_id for one in verdict.findings} == {"cat", "dog"}
        assert verdict.reasons[0].message
        assert verdict.verdict == seen[0].verdict
    if score > 4:
        assert seen[0].findings[0].remedy != wire.REMEDY_NONE
        assert "learned 'cat'" in seen[0].reasons[0].message


@pytest.mark.parametrize("score", SCORES)
async def test_with_the_permission_every_answer_holds_them(front: MakeFront, score: float) -> None:
    here = await front(PORT)
    here.post.house.engine.score = score
    async for verdict in answers(here, "research"):
        for finding in verdict.findings:
            assert not finding.measures_withheld
            assert math.isclose(finding.score, score)
            assert finding.degree == 10.0
        assert re.search(TOLD, str(verdict.reasons[0].message))


async def test_an_answer_that_was_made_for_one_caller_is_not_given_to_another(
    front: MakeFront,
) -> None:
    here = await front(PORT)
    here.post.house.engine.score = SCORES[-1]
    for who in ("research", "image-api", "research", "image-api"):
        async for verdict in answers(here, who):
            assert verdict.findings[0].measures_withheld is (who == "image-api")
    assert here.post.house.engine.audits == 1


async def test_findings_without_numbers_are_in_no_order_of_numbers(front: MakeFront) -> None:
    here = await front(PORT)
    scores = {"cat": 1.0, "dog": 3.0}
    engine, measured = here.post.house.engine, here.post.house.engine._evidence

    def uneven(members: Any, concept_ids: Any) -> Any:
        from dataclasses import replace

        found = measured(members, concept_ids)
        concepts = tuple(replace(c, score=scores[c.concept_id]) for c in found.concepts)
        return replace(found, concepts=concepts)

    engine._evidence = uneven
    seen = [one async for one in answers(here, "image-api")]
    assert {tuple(f.concept_id for f in one.findings) for one in seen} == {("cat", "dog")}
    assert not any("dog" in reason.message for one in seen for reason in one.reasons)
    top = await anext(answers(here, "research"))
    assert [f.concept_id for f in top.findings] == ["dog", "cat"]


async def test_on_loopback_without_tokens_everybody_sees_numbers(front: MakeFront) -> None:
    here = await front()
    here.post.house.engine.score = SCORES[-1]
    async for verdict in answers(here, ""):
        assert math.isclose(verdict.findings[0].score, SCORES[-1])


@pytest.mark.parametrize(
    ("port", "peer", "token", "sees"),
    [
        (GrpcPort(listen=Listen(grpc="0.0.0.0:1"), insecure_off_loopback=True), {}, "", False),
        (GrpcPort(listen=Listen(grpc="unix:/x")), {}, "", True),
        (PORT, {}, "Bearer image-api", False),
        (PORT, {}, "Bearer research", True),
        ("peers", {"x509_common_name": [b"desk"]}, "", True),
        ("peers", {"x509_common_name": [b"other"]}, "", False),
    ],
)
def test_who_sees_numbers(
    port: Any, peer: dict[str, Any], token: str, sees: bool, tmp_path: Any
) -> None:
    if port == "peers":
        tls = Tls(cert=tmp_path, key=tmp_path, client_ca=tmp_path)
        desk = Peer(identity="desk", permissions=ORDINARY | {Permission.SCORES})
        port = GrpcPort(tls=tls, peers=(desk,))
    _, permissions = Access(port).require("/loragate.v1.AuditService/Audit", token, lambda: peer)
    assert (Permission.SCORES in permissions) is sees


async def test_a_denial_by_a_proxy_tells_the_sender_no_number(front: MakeFront) -> None:
    here = await front()
    here.post.house.engine.score = SCORES[-1]
    answer = await here.check("generate_without_adapter")
    assert not answer.denied_response.body
    answer = await here.check("load")
    assert answer.denied_response.status.code == 403
    shown = json.loads(answer.denied_response.body)
    assert "learned 'cat'" in json.dumps(shown)
    assert not re.search(TOLD, str(answer))
    _, processed = await here.process("proc_headers", "proc_body")
    assert processed.immediate_response.status.code == 403
    assert not re.search(TOLD, str(processed))


async def test_the_record_keeps_the_numbers(front: MakeFront) -> None:
    here = await front(PORT)
    here.post.house.engine.score = SCORES[-1]
    [first, *_] = [one async for one in answers(here, "image-api")]
    kept = here.post.house.recorder.get(first.decision_id).decision
    assert kept.findings[0].evidence.score == SCORES[-1]
    assert re.search(TOLD, kept.reasons[0].message)


@pytest.mark.parametrize("code", [*REASON_CODES, "a_code_of_a_later_version"])
def test_a_reason_recorded_before_there_were_plain_sentences_tells_no_number(code: str) -> None:
    told = told_without_numbers(Reason(code, "Score 9.37219."))
    if code not in REASON_CODES or REASON_CODES[code] is not None:
        assert told
        assert "9.37" not in told
    else:
        assert told == "Score 9.37219."


async def test_an_unknown_token_is_told_nothing(front: MakeFront) -> None:
    here = await front(PORT)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async for _ in answers(here, "stranger"):
            pass
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
