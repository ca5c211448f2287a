"""A connection that does not come about: cause, setting, remedy; by real sockets and real TLS."""

from __future__ import annotations

import http.server
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from loragate import AuditClient, AuditError, TlsConfig, _channel
from loragate.cli import main
from loragate.cli.settings import VARIABLES
from loragate.testing import FakeAuditServer
from tests.client.python_names import assert_no_python


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine, and no pauses before gRPC tries again."""
    for name in (*VARIABLES.values(), "http_proxy", "https_proxy", "grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_channel, "channel_config", lambda: "{}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's CA, a stranger's, and a client's certificates of both."""
    folder = tmp_path_factory.mktemp("certificates")
    for name, authority in (("ca", _CA), ("stranger", _STRANGER)):
        client = authority.issue_cert("client@example.org")
        authority.cert_pem.write_to_path(str(folder / f"{name}.pem"))
        client.private_key_pem.write_to_path(str(folder / f"{name}-key.pem"))
        chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
        (folder / f"{name}-cert.pem").write_bytes(chain)
    (folder / "junk.pem").write_text("hello")
    (folder / "empty").write_text("\n")
    (folder / "token").write_text("secret\n")
    (folder / "two-lines").write_text("sec\nret\n")
    (folder / "with-bearer").write_text("Bearer secret\n")
    (folder / "binary").write_bytes(b"\xff\xfe\x00")
    (folder / "style.safetensors").write_bytes(b"adapter")
    return folder


_CA, _STRANGER = trustme.CA(), trustme.CA()


def _credentials(*names: str, demands: bool = False) -> Any:
    server = _CA.issue_cert(*names)
    chain = b"".join(blob.bytes() for blob in server.cert_chain_pems)
    pair = (server.private_key_pem.bytes(), chain)
    root = _CA.cert_pem.bytes() if demands else None
    return grpc.ssl_server_credentials([pair], root, demands)


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, str]]:
    """What may be found at an address, each at one of its own."""
    with ExitStack() as stack:
        opened = {
            "grpc": FakeAuditServer(),
            "tls": FakeAuditServer(credentials=_credentials("127.0.0.1")),
            "mutual": FakeAuditServer(credentials=_credentials("127.0.0.1", demands=True)),
            "elsewhere": FakeAuditServer(credentials=_credentials("gate.example")),
        }
        targets = {name: stack.enter_context(one).target for name, one in opened.items()}
        yield targets | {
            "http": stack.enter_context(_HttpServer()).target,
            "https": stack.enter_context(_HttpServer(secure=True)).target,
            "other grpc": _other_grpc(stack),
            "nobody": "127.0.0.1:1",
            "silent": _silent(stack),
        }


class _HttpServer:
    def __init__(self, *, secure: bool = False) -> None:
        handler = http.server.SimpleHTTPRequestHandler
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            _CA.issue_cert("127.0.0.1").configure_cert(context)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.target = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> _HttpServer:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _other_grpc(stack: ExitStack) -> str:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    stack.callback(server.stop, None)
    return f"127.0.0.1:{port}"


def _silent(stack: ExitStack) -> str:
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return f"127.0.0.1:{listener.getsockname()[1]}"


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


async def test_a_function_that_gives_no_token_is_told_of(make_client: Any, fake: Any) -> None:
    client = make_client(fake.target, token=lambda: "sec\nret")
    with pytest.raises(ValueError, match="token or LORAGATE_TOKEN_FILE: character 4"):
        await client.audit(b"1")
    assert fake.calls == []
