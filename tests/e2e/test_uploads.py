"""Uploads as a client without the SDK would send them, right and wrong."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from loragate.v1 import audit_pb2, audit_pb2_grpc
from loragate_server.testing import ServerProcess

ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
GOOD = (ADAPTERS / "harmless-watermelon.safetensors").read_bytes()
Part = audit_pb2.AuditUploadRequest


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[audit_pb2_grpc.AuditServiceStub]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield audit_pb2_grpc.AuditServiceStub(channel)


def header(**changes: object) -> Part:
    digest = hashlib.sha256(GOOD).hexdigest()
    fields = {"declared_size_bytes": len(GOOD), "sha256": digest, "file_name": "w.safetensors"}
    return Part(header=audit_pb2.UploadHeader(**(fields | changes)))  # type: ignore[arg-type]


def chunks(content: bytes = GOOD, size: int = 256 << 10) -> list[Part]:
    return [Part(chunk=content[at : at + size]) for at in range(0, len(content), size)]


def reason(stub: audit_pb2_grpc.AuditServiceStub, parts: list[Part]) -> str:
    """The reason for which the upload is refused."""
    with pytest.raises(grpc.RpcError) as caught:
        stub.AuditUpload(iter(parts), timeout=60)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.metadata["remedy"]
    return info.reason


def test_an_upload_is_audited(stub: audit_pb2_grpc.AuditServiceStub) -> None:
    answer = stub.AuditUpload(iter([header(), *chunks(size=10_000)]), timeout=120)
    assert answer.verdict.adapters[0].sha256 == hashlib.sha256(GOOD).hexdigest()
    assert answer.verdict.verdict == audit_pb2.VERDICT_KIND_ALLOW


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        pytest.param([], "UPLOAD_PROTOCOL", id="nothing at all"),
        pytest.param(chunks(), "UPLOAD_PROTOCOL", id="no header"),
        pytest.param([header(), header()], "UPLOAD_PROTOCOL", id="two headers"),
        pytest.param([header(), Part()], "UPLOAD_PROTOCOL", id="an empty part"),
        pytest.param([header(), *chunks()[:-1]], "DECLARED_SIZE_MISMATCH", id="too little"),
        pytest.param([header(), *chunks(), Part(chunk=b"x")], "DECLARED_SIZE_MISMATCH", id="more"),
        pytest.param(
            [header(declared_size_bytes=3 << 30)], "FILE_TOO_LARGE", id="more than is allowed"
        ),
        pytest.param([header(sha256="1" * 64), *chunks()], "SHA256_MISMATCH", id="other bytes"),
        pytest.param([header(sha256="xyz"), *chunks()], "REQUEST_INVALID", id="no digest"),
        pytest.param([header(base_model="sdxl")], "BASE_MODEL_UNKNOWN", id="unknown base model"),
        pytest.param(
            [header(adapter=audit_pb2.AdapterReference(path="/etc/passwd")), *chunks()],
            "REQUEST_INVALID",
            id="a second source",
        ),
    ],
)
def test_an_upload_that_breaks_its_word_is_refused(
    stub: audit_pb2_grpc.AuditServiceStub, parts: list[Part], expected: str
) -> None:
    assert reason(stub, parts) == expected


def test_what_was_received_of_a_refused_upload_is_not_kept(
    stub: audit_pb2_grpc.AuditServiceStub, server: ServerProcess
) -> None:
    reason(stub, [header(sha256="2" * 64), *chunks()])
    stored = [path.name for path in (server.log.parent / "store").rglob("*") if path.is_file()]
    assert not any("2" * 64 in name or name.endswith(".part") for name in stored), stored
