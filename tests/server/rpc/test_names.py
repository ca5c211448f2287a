"""What a caller calls an adapter is on record for people, and decides nothing."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import grpc
import pytest

from loragate.v1 import audit_pb2 as wire
from loragate.v1 import audit_pb2_grpc
from loragate_server.config.listen import GrpcPort, Listen
from tests.server.rpc.front import MakeFront, files, front, house, post, tiny, until

__all__ = ["files", "front", "house", "post", "tiny", "until"]

PORT = GrpcPort(listen=Listen(grpc="127.0.0.1:0"))
NAME = "Büro <b>Style</b>\u202e v2"


def asked(here: Any, name: str) -> tuple[Any, wire.AdapterReference]:
    stub = audit_pb2_grpc.AuditServiceStub(here.channel)  # type: ignore[no-untyped-call]
    data = here.post.house.files(0)
    return stub, wire.AdapterReference(inline_bytes=data, declared_name=name)


async def test_a_name_is_in_the_answer_the_log_and_the_database(front: MakeFront) -> None:
    here = await front(PORT)
    stub, reference = asked(here, NAME)
    answer = await stub.Audit(wire.AuditRequest(adapters=[reference]), timeout=20)
    verdict = answer.verdict
    assert verdict.adapters[0].declared_name == NAME
    house = here.post.house
    assert house.recorder.get(verdict.decision_id).caller.adapter_names == (NAME,)
    assert json.dumps([NAME])[1:-1] in house.log_path.read_text()


async def test_a_file_under_another_name_is_the_same_adapter(front: MakeFront) -> None:
    here = await front(PORT)
    stub, first = asked(here, "sunset")
    _, second = asked(here, "robot")
    one = (await stub.Audit(wire.AuditRequest(adapters=[first]), timeout=20)).verdict
    two = (await stub.Audit(wire.AuditRequest(adapters=[second]), timeout=20)).verdict
    assert two.cached
    assert two.decision_id == one.decision_id
    assert two.adapters[0].declared_name == "sunset"  # of the question that was recorded


async def test_an_upload_is_called_by_its_file_unless_it_has_a_name(front: MakeFront) -> None:
    here = await front(PORT)
    stub, reference = asked(here, "")
    data = reference.inline_bytes
    header = wire.UploadHeader(
        declared_size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        file_name="sunset.safetensors",
    )
    parts = [wire.AuditUploadRequest(header=header), wire.AuditUploadRequest(chunk=data)]
    verdict = (await stub.AuditUpload(iter(parts), timeout=20)).verdict
    assert verdict.adapters[0].declared_name == "sunset.safetensors"


async def test_a_name_that_is_too_long_is_refused_with_the_limit(front: MakeFront) -> None:
    here = await front(PORT)
    stub, reference = asked(here, "x" * 257)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Audit(wire.AuditRequest(adapters=[reference]), timeout=20)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "adapters.declared_name has 257 letters" in (caught.value.details() or "")
