"""What a client may find at an address, and the certificates that lead there or do not."""

from __future__ import annotations

import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import trustme

from loragate.testing import FakeAuditServer

_CA, _STRANGER = trustme.CA(), trustme.CA()


def _credentials(*names: str, demands: bool = False) -> Any:
    server = _CA.issue_cert(*names)
    chain = b"".join(blob.bytes() for blob in server.cert_chain_pems)
    pair = (server.private_key_pem.bytes(), chain)
    root = _CA.cert_pem.bytes() if demands else None
    return grpc.ssl_server_credentials([pair], root, demands)


@contextmanager
def opened_places() -> Iterator[dict[str, str]]:
    """Their targets by what they are."""
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


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Says nothing where the command speaks."""


class _HttpServer:
    def __init__(self, *, secure: bool = False) -> None:
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Quiet)
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


def write_files(folder: Path) -> None:
    """Writes the CA of the servers, a stranger's, a client's certificates of both, and more."""
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


@contextmanager
def answering(nginx: Path, folder: Path, statuses: list[int]) -> Iterator[dict[int, str]]:
    """A real nginx that speaks HTTP/2 and answers each status at a port of its own; the targets."""
    with ExitStack() as stack:
        ports = {status: _free_port(stack) for status in statuses}
    servers = "".join(
        f"server {{ listen 127.0.0.1:{port} http2; return {status} hello; }}\n"
        for status, port in ports.items()
    )
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/pid; error_log {folder}/log; events {{}}\n"
        f"http {{ access_log off;\n{temporary}{servers}}}\n"
    )
    process = subprocess.Popen([nginx, "-c", config])
    try:
        for port in ports.values():
            _wait_for(port)
        yield {status: f"127.0.0.1:{port}" for status, port in ports.items()}
    finally:
        process.terminate()
        process.wait(10)


def _free_port(stack: ExitStack) -> int:
    unused = stack.enter_context(socket.socket())
    unused.bind(("127.0.0.1", 0))
    return int(unused.getsockname()[1])


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"Nothing listens at {port}.")
