"""Receivers that speak no HTTP, or too much of it: each attempt ends in time and says how."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import pytest
import trustme

from loragate_server.config.events import EventReceiver
from loragate_server.events.sending import Sender
from loragate_server.record.outbox.rows import Event
from testkit.waiting import at_most

EVENT = Event("1", "decision.block", datetime.now(UTC), "{}")
MakeReceiver = Callable[..., EventReceiver]
Speak = Callable[[socket.socket], None]


@contextmanager
def peer(speak: Speak) -> Iterator[str]:
    """A server that answers each connection as it likes; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    speak(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def forever(head: bytes, piece: bytes, pause_s: float = 0.0) -> Speak:
    def speak(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(head)
        while True:
            connection.sendall(piece)
            time.sleep(pause_s)

    return speak


def once(data: bytes) -> Speak:
    def speak(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)

    return speak


OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("speak", "said"),
    [
        (once(b""), "the connection failed: ServerDisconnectedError"),
        (once(b"SSH-2.0-OpenSSH_9.6\r\n"), "the connection failed: "),
        (once(OK + b"Content-Length: -1\r\n\r\n"), "the connection failed: "),
        (once(OK + b"A" * 100_000 + b": b\r\n\r\n"), "the connection failed: "),
        (forever(OK, b"A: b\r\n", 0.05), "no answer within 0.5 s"),
        (forever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05), "no answer within 0.5 s"),
        (once(b"HTTP/1.1 999 What\r\n\r\n"), "answered 999"),
        (once(b"HTTP/1.1 503 \r\nRetry-After: \xff\xfe9e9\r\n\r\n"), "answered 503"),
        (once(b"HTTP/1.1 503 \r\nRetry-After: " + b"9" * 4000 + b"\r\n\r\n"), "answered 503"),
    ],
)
async def test_what_is_no_answer_is_a_failure_in_time(
    receiver: MakeReceiver, speak: Speak, said: str
) -> None:
    # Where there is an answer, a busy machine has time for it.
    timeout_s = 0.5 if said.startswith("no answer") else 60.0
    with peer(speak) as url:
        async with Sender(receiver(url, timeout_s=timeout_s)) as sender:
            began = time.monotonic()
            failed = await sender.send(EVENT, datetime.now(UTC))
    assert time.monotonic() - began < at_most(2)
    assert failed.error.startswith(said)
    assert 0 <= failed.retry_after_s <= 3600


@pytest.mark.parametrize(
    "speak",
    [
        forever(OK + b"Content-Length: 99999999999\r\n\r\n", b"a" * 65536),
        forever(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        once(OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nbomb"),
    ],
)
async def test_a_body_without_an_end_is_not_waited_for(
    receiver: MakeReceiver, speak: Speak
) -> None:
    with peer(speak) as url:
        async with Sender(receiver(url, timeout_s=20)) as sender:
            began = time.monotonic()
            sent = await sender.send(EVENT, datetime.now(UTC))
    assert sent.error == ""
    assert time.monotonic() - began < at_most(2)


async def test_a_receiver_that_speaks_no_tls_is_told_apart(receiver: MakeReceiver) -> None:
    with peer(once(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as url:
        async with Sender(receiver(url.replace("http:", "https:"))) as sender:
            failed = await sender.send(EVENT, datetime.now(UTC))
    assert "cannot be reached" in failed.error or "connection failed" in failed.error


async def test_a_certificate_that_nobody_vouches_for_is_not_trusted(
    receiver: MakeReceiver,
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)

    def speak(connection: socket.socket) -> None:
        with suppress(ssl.SSLError):
            context.wrap_socket(connection, server_side=True).close()

    with peer(speak) as url:
        async with Sender(receiver(url.replace("http:", "https:"))) as sender:
            failed = await sender.send(EVENT, datetime.now(UTC))
    assert failed.error.startswith("its certificate is not trusted: ")
