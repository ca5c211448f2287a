"""A whole server: what it says over HTTP is what it says over gRPC."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
import socket
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from loragate.v1 import audit_pb2 as wire
from loragate.v1 import audit_pb2_grpc
from loragate_server.testing import ServerProcess
from testkit.lanes import daily
from testkit.waiting import at_most, eventually
from tests.server.rest.conftest import ADAPTERS, JSON

NAMES = sorted(file.name for file in ADAPTERS.glob("*.safetensors"))
BYTES = {"Content-Type": "application/octet-stream"}


@pytest.fixture
def stub(server: ServerProcess) -> Iterator[Any]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield audit_pb2_grpc.AuditServiceStub(channel)  # type: ignore[no-untyped-call]


def ask(
    server: ServerProcess, method: str, path: str, body: Any = None, headers: Any = None
) -> tuple[int, Any]:
    """Status and document of an answer."""
    connection = HTTPConnection(server.http, timeout=at_most(60))
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def audit(server: ServerProcess, question: wire.AuditRequest, **headers: str) -> tuple[int, Any]:
    body = json_format.MessageToJson(question)
    return ask(server, "POST", "/v1/audits", body, JSON | headers)


def as_message(document: Any, kind: Any = wire.AuditResponse) -> Any:
    return json_format.ParseDict(document, kind())


@pytest.mark.parametrize(
    "name", daily("learned-bomb.safetensors", "harmless-watermelon.safetensors", of=NAMES)
)
def test_the_verdict_is_that_of_grpc(
    server: ServerProcess, stub: Any, root: Path, name: str
) -> None:
    reference = wire.AdapterReference(path=str(root / name), declared_name=name)
    question = wire.AuditRequest(adapters=[reference], caller=wire.CallerContext(service="test"))
    stub.Audit(question, timeout=at_most(60))
    over_grpc = stub.Audit(question, timeout=at_most(60))  # the answer on record
    status, document = audit(server, question)
    assert status == 200
    assert as_message(document) == over_grpc
    decision = over_grpc.verdict.decision_id
    status, document = ask(server, "GET", f"/v1/audits/{decision}")
    assert as_message(document, wire.GetAuditResponse) == stub.GetAudit(
        wire.GetAuditRequest(decision_id=decision)
    )


@pytest.mark.parametrize("digest", ["query", "header"])
def test_an_uploaded_file_gets_the_verdict_that_grpc_gives_it(
    server: ServerProcess, stub: Any, digest: str
) -> None:
    data = (ADAPTERS / "learned-bomb.safetensors").read_bytes()
    found = hashlib.sha256(data)
    headers, query = dict(BYTES), "?adapter.denoiser_strength=0.9&file_name=bomb.safetensors"
    if digest == "query":
        query += f"&sha256={found.hexdigest()}"
    else:
        headers["Content-Digest"] = f"sha-256=:{base64.b64encode(found.digest()).decode()}:"
    # Twice, as the answer says whether it was on record.
    for _ in range(2):
        status, document = ask(server, "POST", f"/v1/audits:upload{query}", data, headers)
        assert status == 200
    header = wire.UploadHeader(
        declared_size_bytes=len(data),
        sha256=found.hexdigest(),
        file_name="bomb.safetensors",
        adapter=wire.AdapterReference(denoiser_strength=0.9),
    )
    parts = [wire.AuditUploadRequest(header=header), wire.AuditUploadRequest(chunk=data)]
    over_grpc = stub.AuditUpload(iter(parts), timeout=at_most(60))
    assert as_message(document, wire.AuditUploadResponse) == over_grpc
    assert document["verdict"]["verdict"] == "VERDICT_KIND_BLOCK"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ("sha256", "SHA256_MISMATCH"),
        ("cut", "FILE_TRUNCATED"),
        ("pickle", "PICKLE_REFUSED"),
        ("declared", "DECLARED_SIZE_MISMATCH"),
    ],
)
def test_a_bad_upload_is_refused_with_grpcs_reason(
    server: ServerProcess, changed: str, reason: str
) -> None:
    data = (ADAPTERS / "harmless-sepia.safetensors").read_bytes()
    if changed == "cut":
        data = data[:-100]
    if changed == "pickle":
        data = pickle.dumps({"weight": [0.0]})
    sha256 = hashlib.sha256(b"" if changed == "sha256" else data).hexdigest()
    query = f"?sha256={sha256}"
    if changed == "declared":
        query += f"&declared_size_bytes={len(data) - 1}"
    status, told = ask(server, "POST", f"/v1/audits:upload{query}", data, BYTES)
    assert (status, told["reason"]) == (400, reason)
    assert told["remedy"]


def test_a_file_over_the_limit_is_refused_by_what_is_declared(server: ServerProcess) -> None:
    query = f"?sha256={'0' * 64}&declared_size_bytes={1 << 50}"
    status, told = ask(server, "POST", f"/v1/audits:upload{query}", b"x", BYTES)
    assert (status, told["reason"]) == (400, "FILE_TOO_LARGE")


def watch(server: ServerProcess, path: Path, strength: float) -> socket.socket:
    """A peer that has asked to watch an audit."""
    host, port = server.http.rsplit(":", 1)
    peer = socket.create_connection((host, int(port)), timeout=at_most(60))
    body = json.dumps(
        {"audit": {"adapters": [{"path": str(path), "denoiser_strength": strength}]}}
    ).encode()
    peer.sendall(
        b"POST /v1/audits:watch HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    return peer


def test_who_watches_is_told_how_far_it_is_and_then_the_verdict(
    server: ServerProcess, root: Path
) -> None:
    connection = HTTPConnection(server.http, timeout=at_most(60))
    body = {"audit": {"adapters": [{"path": str(root / "harmless-sepia.safetensors")}]}}
    connection.request("POST", "/v1/audits:watch", json.dumps(body), JSON)
    answer = connection.getresponse()
    assert answer.getheader("Content-Type") == "application/x-ndjson"
    *lines, last = [as_message(json.loads(line), wire.WatchAuditResponse) for line in answer]
    assert all(line.WhichOneof("event") == "progress" for line in lines)
    assert last.verdict.verdict == wire.VERDICT_KIND_ALLOW
    connection.close()


def test_who_watches_what_fails_is_told_why_in_a_last_line(
    server: ServerProcess, tmp_path: Path
) -> None:
    with watch(server, tmp_path / "nowhere", 1.0) as peer, peer.makefile("rb") as answer:
        lines = answer.read()
    assert b'"reason":"PATH_NOT_ALLOWED"' in lines


def handled(server: ServerProcess, method: str, code: str) -> float:
    """How many calls of a method have ended so."""
    connection = HTTPConnection(server.http, timeout=at_most(60))
    connection.request("GET", "/metrics", headers={"Accept": "text/plain"})
    text = connection.getresponse().read().decode()
    connection.close()
    for line in text.splitlines():
        if (
            line.startswith("grpc_server_handled_total{")
            and f'"{method}"' in line
            and f'"{code}"' in line
        ):
            return float(line.rpartition(" ")[2])
    return 0.0


def test_an_audit_whose_caller_leaves_is_cancelled_and_counted_so(
    server: ServerProcess, root: Path
) -> None:
    before = handled(server, "WatchAudit", "CANCELLED")
    with watch(server, root / "harmless-sepia.safetensors", 0.7123) as peer:
        assert peer.recv(64)  # it has begun
    assert eventually(lambda: handled(server, "WatchAudit", "CANCELLED") == before + 1, 30)


def test_an_audit_ends_with_the_time_that_its_caller_has(server: ServerProcess, root: Path) -> None:
    reference = wire.AdapterReference(path=str(root / "harmless-sepia.safetensors"))
    reference.denoiser_strength = 0.7321
    began = time.monotonic()
    status, told = audit(
        server, wire.AuditRequest(adapters=[reference]), **{"Request-Timeout": "0.05"}
    )
    assert (status, told["reason"]) == (504, "DEADLINE_EXCEEDED")
    assert time.monotonic() - began < at_most(2)


def test_a_concept_is_read_line_by_line_and_refused_as_over_grpc(server: ServerProcess) -> None:
    concept = {"concept_id": "new", "name": "new", "category": "harm", "prompts": ["new"]}
    concept |= {"severity": "SEVERITY_LOW", "role": "CONCEPT_ROLE_FORBIDDEN"}
    lines = [{"concept": concept}, {"picture": base64.b64encode(b"no picture").decode()}]
    body = "\n".join(map(json.dumps, lines))
    headers = {"Content-Type": "application/x-ndjson"}
    status, told = ask(server, "POST", "/v1/concepts", body, headers)
    assert (status, told["reason"]) == (400, "CONCEPT_PICTURES_INVALID")
    status, told = ask(server, "POST", "/v1/concepts", body + "\n{}x", headers)
    assert (status, told["reason"]) == (400, "REQUEST_INVALID")
    status, told = ask(server, "DELETE", "/v1/concepts/new")
    assert (status, told["reason"]) == (404, "CONCEPT_UNKNOWN")
