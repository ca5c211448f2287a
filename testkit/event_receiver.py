"""A real HTTP server that takes events, in this process or as one of its own that can be ended.

python -m testkit.event_receiver PORT SECRET_FILE TAKEN_FILE
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook

Answer = Callable[["Taken"], int]


@dataclass(frozen=True)
class Taken:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def id(self) -> str:
        return str(self.event["id"])


class EventReceiver(ThreadingHTTPServer):
    """Answers each request as it is told to, and keeps all of them."""

    daemon_threads = True

    def __init__(self, port: int = 0, answer: Answer = lambda _: 204) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer = answer
        self.more_headers: dict[str, str] = {}
        self.taken: list[Taken] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/events"

    @property
    def ids(self) -> list[str]:
        with self.lock:
            return [one.id for one in self.taken]


class _Handler(BaseHTTPRequestHandler):
    server: EventReceiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        one = Taken(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
        status = self.server.answer(one)
        with self.server.lock:
            self.server.taken.append(one)
        self.send_response(status)
        for name, value in self.server.more_headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002
        """Nothing."""


@contextmanager
def event_receiver(port: int = 0, answer: Answer = lambda _: 204) -> Iterator[EventReceiver]:
    """One that runs in this process."""
    with EventReceiver(port, answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def make_secret(file: Path, prefix: str = "whsec_") -> Path:
    """A file with a new secret."""
    file.write_text(prefix + base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    return file


@contextmanager
def receiver_process(port: int, secret_file: Path, taken: Path) -> Iterator[int]:
    """One of its own process, which takes what is signed well; gives the port.

    Args:
        port: to listen on; 0 for any that is free.
        secret_file: of one `whsec_` secret.
        taken: gets a line with the body of each event.
    """
    command = [sys.executable, "-m", "testkit.event_receiver", str(port), secret_file, taken]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main(port: str, secret_file: str, taken: str) -> None:
    webhook = Webhook(Path(secret_file).read_text().strip())
    lock = threading.Lock()

    def answer(one: Taken) -> int:
        webhook.verify(one.body, one.headers)
        with lock, Path(taken).open("a") as file:
            file.write(one.body.decode() + "\n")
            file.flush()
            os.fsync(file.fileno())
        return 204

    with EventReceiver(int(port), answer) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
