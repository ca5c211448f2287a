"""Targets, tokens and certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from loragate import AdapterReference, AuditClient, TlsConfig, _channel
from loragate.config import ClientConfig, resolve_target, stays_on_machine
from loragate.reference import ASK_FIRST_BYTES
from loragate.testing import FakeAuditServer
from tests.client.conftest import AnyClient


@pytest.mark.parametrize(
    ("target", "local"),
    [
        ("127.0.0.1:1", True),
        ("localhost:1", True),
        ("dns:///localhost:1", True),
        ("[::1]:1", True),
        ("ipv6:[::1]:1", True),
        ("unix:/run/loragate.sock", True),
        ("loragate:1", False),
        ("10.0.0.1:1", False),
        ("dns:///loragate.svc:1", False),
        ("localhost.example.org:1", False),
    ],
)
def test_a_token_leaves_the_machine_only_over_tls(target: str, local: bool) -> None:
    assert stays_on_machine(target) is local
    ClientConfig(target, tls=TlsConfig(), token="t")
    if local:
        ClientConfig(target, token="t")
    else:
        with pytest.raises(ValueError, match="in the clear"):
            ClientConfig(target, token="t")


def test_a_token_is_not_printed() -> None:
    assert "secret" not in repr(ClientConfig("localhost:1", token="secret"))


def test_the_target_comes_from_the_argument_the_environment_or_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAGATE_TARGET", "elsewhere:1")
    assert resolve_target("here:1") == "here:1"
    assert resolve_target(None) == "elsewhere:1"
    monkeypatch.delenv("LORAGATE_TARGET")
    assert resolve_target(None) == "127.0.0.1:50051"


@pytest.mark.parametrize(
    "options", [{"on_unavailable": "hope"}, {"timeout": -1}, {"timeout": float("inf")}]
)
def test_a_wrong_setting_is_refused_at_once(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be|positive"):
        AuditClient("localhost:1", **options)
    with pytest.raises(ValueError, match="together"):
        TlsConfig(cert_file="cert.pem")


async def test_a_token_is_asked_for_with_every_call(fake: Any, make_client: Any) -> None:
    tokens = iter(["one", "two"])
    client = make_client(fake.target, token=lambda: next(tokens))
    await client.audit(b"1")
    await client.audit(b"2")
    sent = [call.metadata["authorization"] for call in fake.calls]
    assert sent == ["Bearer one", "Bearer two"]


def _write_certificates(authority: trustme.CA, folder: Path) -> TlsConfig:
    client = authority.issue_cert("client@example.org")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    client.private_key_pem.write_to_path(str(folder / "key.pem"))
    chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
    (folder / "cert.pem").write_bytes(chain)
    return TlsConfig(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


def _server_credentials(authority: trustme.CA) -> Any:
    server = authority.issue_cert("127.0.0.1", "localhost")
    pair = (
        server.private_key_pem.bytes(),
        b"".join(blob.bytes() for blob in server.cert_chain_pems),
    )
    return grpc.ssl_server_credentials([pair], authority.cert_pem.bytes(), True)


async def test_mutual_tls_works_and_new_certificates_are_picked_up(
    make_client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_channel, "RECHECK_S", 0.0)
    old, new = trustme.CA(), trustme.CA()
    tls = _write_certificates(old, tmp_path)
    with FakeAuditServer(credentials=_server_credentials(old)) as server:
        client = make_client(server.target, tls=tls, timeout=5)
        assert (await client.audit(b"1")).allowed
    with FakeAuditServer(credentials=_server_credentials(new)) as server:
        stranger = make_client(server.target, tls=tls, timeout=2)
        assert not (await stranger.audit(b"1")).decided
        _write_certificates(new, tmp_path)
        assert (await stranger.audit(b"1")).allowed


async def test_a_certificate_that_is_missing_is_an_os_error(
    make_client: Any, tmp_path: Path
) -> None:
    client = make_client("localhost:1", tls=TlsConfig(tmp_path / "nothing.pem"))
    with pytest.raises(FileNotFoundError):
        await client.audit(b"1")


async def test_questions_say_how_many_bytes_of_adapters_they_carry(
    client: AnyClient, fake: FakeAuditServer
) -> None:
    small, large = b"x" * 1000, b"y" * ASK_FIRST_BYTES
    await client.audit(small)
    await client.audit([small, AdapterReference(data=b"z")])
    await client.audit("/models/style.safetensors")
    await client.collect("watch", small)
    await client.audit(large)
    said = [(call.method, call.metadata.get("loragate-inline-bytes")) for call in fake.calls]
    assert said[:4] == [
        ("Audit", "1000"),
        ("Audit", "1001"),
        ("Audit", "0"),
        ("WatchAudit", "1000"),
    ]
    # By its digest first, and with the bytes where they are missing.
    assert said[4:] in ([("Audit", "0")], [("Audit", "0"), ("Audit", str(len(large)))])
