"""Settings of a connection: read from options or variables, and named where they are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loragate import AuditClient
from loragate.cli import main
from loragate.integrations._settings import client_from_environment
from loragate.testing import FakeAuditServer
from tests.client.python_names import assert_no_python


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("127.0.0.1", "the port is missing. Write HOST:PORT"),
        ("localhost", "the port is missing"),
        ("dns:///gate.example", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("http://", "no http:// before them"),
        ("http://127.0.0.1:50051", "no http:// before them. Write 127.0.0.1:50051."),
        ("https://gate.example:50051/", "Write gate.example:50051."),
        ("grpc://gate.example:50051", "no grpc:// before them"),
        ("127.0.0.1:99999", "'99999' is no port"),
        ("127.0.0.1:0", "'0' is no port"),
        ("127.0.0.1:http", "'http' is no port"),
        ("127.0.0.1:", "'' is no port"),
        (":50051", "the host is missing"),
        ("::1:50051", "stands in brackets"),
        ("a:b:50051", "a colon too many"),
        ("gate.example:50051/audit", "has no '/'"),
        ("me@gate.example:50051", "has no '@'"),
        ("gate .example:50051", "a space"),
        ("unix:", "no path"),
        ("ipv4:10.0.0.1", "the port is missing"),
    ],
)
def test_what_is_no_address_is_refused_by_the_setting_that_it_comes_from(
    target: str, wrong: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", "--target", target]) == 3
    told = capsys.readouterr().err
    assert told.startswith("loragate: --target: ")
    assert wrong in told
    monkeypatch.setenv("LORAGATE_TARGET", target)
    assert main(["list"]) == 3
    assert capsys.readouterr().err.startswith("loragate: LORAGATE_TARGET: ")
    with pytest.raises(ValueError, match="target or LORAGATE_TARGET"):
        AuditClient(target)


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:50051",
        "gate.example:1",
        "[::1]:50051",
        "dns:///gate:50051",
        "dns:gate:50051",
        "dns://8.8.8.8/gate.example:50051",
        "unix:/run/loragate.sock",
        "unix:///run/loragate.sock",
        "unix-abstract:loragate",
        "ipv4:10.0.0.1:50051,10.0.0.2:50051",
        "ipv6:[::1]:50051",
        "xds:///gate",
    ],
)
def test_every_kind_of_address_that_grpc_takes_is_taken(target: str) -> None:
    AuditClient(target).close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--tls-ca nope.pem", "--tls-ca cannot be read: No such file or directory: nope.pem."),
        ("--tls-ca .", "--tls-ca cannot be read: Is a directory: ."),
        ("--tls-ca junk.pem", "--tls-ca: junk.pem holds no certificate. Name a PEM file"),
        ("--tls-ca empty", "--tls-ca: empty holds no certificate"),
        ("--tls-ca ca.pem --tls-cert ca-cert.pem", "--tls-cert needs --tls-key or LORAGATE_TLS_"),
        ("--tls-key ca-key.pem", "--tls-key needs --tls-cert or LORAGATE_TLS_CERT beside it"),
        ("--tls-cert nope --tls-key ca-key.pem", "--tls-cert cannot be read: No such file"),
        ("--tls-cert ca-key.pem --tls-key ca-cert.pem", "--tls-cert: ca-key.pem holds no cert"),
        ("--tls-cert ca-cert.pem --tls-key junk.pem", "--tls-key: junk.pem holds no private key"),
        ("--tls-cert ca-cert.pem --tls-key stranger-key.pem", "is not the key of ca-cert.pem"),
        ("--token-file nope", "--token-file cannot be read: No such file or directory: nope."),
        ("--token-file .", "--token-file cannot be read: Is a directory: ."),
        ("--token-file empty", "--token-file: empty is empty. Write the token into it."),
        ("--token-file binary", "--token-file: binary is no text with a token."),
        ("--token-file two-lines", "--token-file: character 4 of the token is a space, a line"),
        ("--token-file with-bearer", "--token-file: the token begins with 'Bearer'"),
        ("--token-file token --target gate.example:1", "in the clear. Speak TLS: set --tls"),
    ],
)
def test_a_file_of_the_connection_that_is_wrong_is_named_with_its_option(
    options: str,
    said: str,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    for command in (["audit", "style.safetensors"], ["gate-dir", "."], ["list"]):
        assert main([*command, *options.split()]) == 3
        told = capsys.readouterr()
        assert said in told.err
        assert "style" not in told.err
        assert told.out == ""
        assert_no_python(told.err)


def test_what_the_environment_sets_is_read_and_named(
    files: Path, places: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setenv("LORAGATE_TARGET", places["mutual"])
    monkeypatch.setenv("LORAGATE_TLS_CA", "ca.pem")
    monkeypatch.setenv("LORAGATE_TLS_CERT", "ca-cert.pem")
    monkeypatch.setenv("LORAGATE_TLS_KEY", "ca-key.pem")
    monkeypatch.setenv("LORAGATE_TOKEN_FILE", "token")
    monkeypatch.setenv("LORAGATE_TIMEOUT_S", "9")
    assert main(["audit", "style.safetensors"]) == 0
    for variable, value, said in [
        ("LORAGATE_TLS_KEY", "", "LORAGATE_TLS_CERT needs --tls-key or LORAGATE_TLS_KEY"),
        ("LORAGATE_TLS_KEY", "stranger-key.pem", "LORAGATE_TLS_KEY: stranger-key.pem is not"),
        ("LORAGATE_TLS_CA", "nope", "LORAGATE_TLS_CA cannot be read"),
        ("LORAGATE_TLS_CA", "stranger.pem", "the server's CA by LORAGATE_TLS_CA."),
        ("LORAGATE_TOKEN_FILE", "nope", "LORAGATE_TOKEN_FILE cannot be read"),
        (
            "LORAGATE_TIMEOUT_S",
            "1m",
            "LORAGATE_TIMEOUT_S is a positive number of seconds, not",
        ),
        ("LORAGATE_TIMEOUT_S", "0", "LORAGATE_TIMEOUT_S is a positive number"),
        ("LORAGATE_TIMEOUT_S", "nan", "LORAGATE_TIMEOUT_S is a positive number"),
        ("LORAGATE_CLOCK_SKEW_S", "-1", "LORAGATE_CLOCK_SKEW_S is a number of seconds from 0 to"),
        ("LORAGATE_BASE_DIGEST", "zz", "LORAGATE_BASE_DIGEST is a hexadecimal sha256, not 'zz'."),
    ]:
        with monkeypatch.context() as changed:
            changed.setenv(variable, value)
            assert main(["audit", "style.safetensors"]) == 3, variable
        told = capsys.readouterr().err
        assert said in told
        assert_no_python(told)


@pytest.mark.parametrize("variable", ["LORAGATE_TIMEOUT_S", "LORAGATE_CLOCK_SKEW_S"])
def test_a_guard_names_the_variable_that_is_no_number(variable: str) -> None:
    with pytest.raises(ValueError, match=f"{variable} is '1m', not a number of seconds"):
        client_from_environment("a server", {variable: "1m"})


def test_options_win_over_the_environment_and_an_empty_one_is_no_option(
    files: Path, fake: FakeAuditServer, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(files)
    monkeypatch.setenv("LORAGATE_TARGET", "nowhere")
    monkeypatch.setenv("LORAGATE_BASE_MODEL", "tiny")
    assert main(["audit", "--target", fake.target, "style.safetensors"]) == 0
    assert fake.calls[0].request.base_model == "tiny"
    for option in ("--target", "--tls-ca", "--token-file"):
        assert main(["list", option, ""]) == 3
        assert f"{option} is empty. Give it a value, or leave it out." in capsys.readouterr().err


def test_a_server_name_stands_in_for_the_host(
    files: Path, places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    command = ["list", "--target", places["elsewhere"], "--tls-ca", "ca.pem"]
    assert main([*command, "--tls-server-name", "gate.example"]) == 0
    monkeypatch.setenv("LORAGATE_TLS_SERVER_NAME", "gate.example")
    assert main(command) == 0


async def test_a_function_that_gives_no_token_is_told_of(make_client: Any, fake: Any) -> None:
    client = make_client(fake.target, token=lambda: "sec\nret")
    with pytest.raises(ValueError, match="token or LORAGATE_TOKEN_FILE: character 4"):
        await client.audit(b"1")
    assert fake.calls == []
