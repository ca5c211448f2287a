"""A connection that does not come about: cause, setting, remedy; by real sockets and real TLS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loragate import AuditError, TlsConfig, _channel
from loragate.cli import main
from loragate.testing import FakeAuditServer
from tests.client.places import answering
from tests.client.python_names import assert_no_python

NGINX = Path("/usr/sbin/nginx")


CASES: dict[str, tuple[str, str, str, str]] = {
    "nothing listens": ("nobody", "", "Nothing listens at", "Is loragate-server running there?"),
    "http": ("http", "", "speaks HTTP, and not gRPC", "gRPC port is 50051 by default"),
    "https": ("https", "--tls-ca ca.pem", "speaks HTTP, and not gRPC", "50051 by default"),
    "other grpc": ("other grpc", "", "does not know this call", "another gRPC service"),
    "silence": ("silent", "--timeout 0.3", "gave no answer in time", "more time by --timeout"),
    "plain at tls": ("tls", "", "closed the connection", "may speak TLS: name the file"),
    "tls at plain": ("grpc", "--tls-ca ca.pem", "does not speak TLS", "Leave out --tls-ca"),
    "tls at http": ("http", "--tls", "does not speak TLS", "Leave out --tls,"),
    "stranger's ca": ("tls", "--tls-ca stranger.pem", "does not come from the CA in", "--tls-ca"),
    "no ca": ("tls", "--tls", "a CA that this machine trusts", "by --tls-ca or LORAGATE_TLS_CA"),
    "other name": ("elsewhere", "--tls-ca ca.pem", "not for the host in", "--tls-server-name"),
    "wrong name": (
        "elsewhere",
        "--tls-ca ca.pem --tls-server-name gate2.example",
        "not for the name gate2.example",
        "or give it by --tls-server-name",
    ),
    "no client certificate": (
        "mutual",
        "--tls-ca ca.pem",
        "closed the connection after the TLS handshake",
        "give one by --tls-cert or LORAGATE_TLS_CERT and --tls-key or LORAGATE_TLS_KEY",
    ),
    "stranger's certificate": (
        "mutual",
        "--tls-ca ca.pem --tls-cert stranger-cert.pem --tls-key stranger-key.pem",
        "closed the connection after the TLS handshake",
        "may not trust the certificate of --tls-cert",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_connection_that_fails_says_why_and_what_to_do_and_blames_no_adapter(
    case: str,
    places: dict[str, str],
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    place, options, cause, remedy = CASES[case]
    monkeypatch.chdir(files)
    adapters = ["style.safetensors"] * 2
    target = ["--target", places[place]]
    assert main(["audit", *target, *options.split(), *adapters]) == 3
    told = capsys.readouterr()
    assert cause in told.err
    assert remedy in told.err
    assert "style" not in told.err
    assert len(told.err.splitlines()) == 1, "what is wrong for all files is said once"
    assert_no_python(told.out + told.err)
    assert main(["list", *target, *options.split()]) == 3
    told = capsys.readouterr()
    assert cause in told.err
    assert_no_python(told.err)


@pytest.mark.parametrize("case", [name for name in CASES if name != "wrong name"])
async def test_both_clients_name_their_own_settings(
    case: str,
    places: dict[str, str],
    files: Path,
    make_client: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, options, cause, _ = CASES[case]
    monkeypatch.chdir(files)
    words = iter(options.split())
    given = {
        word[2:].removeprefix("tls-") + "_file": next(words)
        for word in words
        if word.startswith("--tls-")
    }
    tls = TlsConfig(**given) if options.startswith("--tls") else None
    client = make_client(places[place], tls=tls, timeout=0.5, on_unavailable="raise")
    with pytest.raises(AuditError) as caught:
        await client.audit(b"adapter")
    assert cause in str(caught.value)
    assert caught.value.remedy
    assert caught.value.metadata["grpc_message"]
    assert "--" not in str(caught.value)
    assert "TlsConfig" not in str(caught.value)


def test_a_service_that_wants_to_know_the_caller_leads_to_the_token(
    files: Path, fake: FakeAuditServer, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(files)
    told = []
    for options in ([], ["--token-file", "token"]):
        fake.fail_next("UNAUTHENTICATED", message="No.", remedy="Send 'authorization' metadata.")
        command = ["audit", "--target", fake.target, *options, "style.safetensors"]
        assert main(command) == 3
        told.append(capsys.readouterr().err)
    assert "Give a token by --token-file or LORAGATE_TOKEN_FILE, or a certificate" in told[0]
    assert "Give a token that the server knows (its setting `tokens`) by --token-file." in told[1]
    assert "style" not in told[0] + told[1]


def test_a_proxy_on_the_way_is_named(
    places: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    command = ["list", "--target", "gate.example:50051"]
    for proxy, cause in (
        ("http", "An HTTP proxy refuses to lead to"),
        ("nobody", "at the proxy of"),
    ):
        monkeypatch.setenv("http_proxy", f"http://user:secret@{places[proxy]}")
        assert main(command) == 3
        told = capsys.readouterr().err
        assert cause in told
        assert "the proxy that http_proxy names; no_proxy=gate.example goes past it" in told
        assert "secret" not in told


@pytest.mark.needs("nginx")
@pytest.mark.skipif(
    not NGINX.exists(), reason="nginx is missing; scripts/install_test_tools.sh installs it"
)
def test_a_proxy_that_answers_for_itself_is_not_taken_for_the_service(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = str(files / "style.safetensors")
    with answering(NGINX, tmp_path, [502, 404, 403, 401, 302, 200]) as targets:
        for status, target in targets.items():
            assert main(["audit", "--target", target, adapter]) == 3
            told = capsys.readouterr().err
            cause = f"HTTP status {status}" if status != 200 else "does not answer as gRPC does"
            assert cause in told
            assert "Check --target: it names an HTTP port or a proxy" in told
            assert "style" not in told


def test_a_socket_that_is_not_there_and_a_name_that_nobody_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--target", f"unix:{tmp_path}/gate.sock"]) == 3
    assert "There is no socket" in capsys.readouterr().err
    assert main(["list", "--target", "gate.invalid:50051"]) == 3
    assert "The name in gate.invalid:50051 cannot be resolved." in capsys.readouterr().err


def test_in_json_too_the_connection_is_to_blame(
    places: dict[str, str], files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = str(files / "style.safetensors")
    assert main(["audit", "--json", "--target", places["nobody"], adapter]) == 3
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["reason"] == "UNAVAILABLE"
    assert error["message"] == f"Nothing listens at {places['nobody']}."
    assert "--target" in error["remedy"]
    assert "Connection refused" in error["metadata"]["grpc_message"]


async def test_certificates_in_the_middle_of_a_change_do_not_end_what_works(
    make_client: Any, places: dict[str, str], files: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(_channel, "RECHECK_S", 0.0)
    ca, cert, key = (tmp_path / name for name in ("ca.pem", "cert.pem", "key.pem"))
    for path, content in ((ca, "ca.pem"), (cert, "ca-cert.pem"), (key, "ca-key.pem")):
        path.write_bytes((files / content).read_bytes())
    client = make_client(places["mutual"], tls=TlsConfig(ca, cert, key), timeout=5)
    assert (await client.audit(b"1")).allowed
    key.write_text("half of a key")
    assert (await client.audit(b"1")).allowed
    key.write_bytes((files / "ca-key.pem").read_bytes())
    assert (await client.audit(b"1")).allowed
