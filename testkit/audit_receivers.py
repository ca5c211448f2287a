"""Receivers of audit devices: syslog over streams and OTLP logs, and what they were sent."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as wire
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc

_MESSAGE = re.compile(
    rb"<(?P<priority>\d+)>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) (?P<process>\S+) (?P<id>\S+) "
    rb'\[(?P<data>\S+) seq="(?P<seq>\d+)" sha256="(?P<sha256>[0-9a-f]{64})"\] (?P<line>.*)',
    re.DOTALL,
)


@dataclass(frozen=True)
class Received:
    """A line as it came."""

    seq: int
    sha256: str
    kind: str
    line: bytes
    head: dict[str, str] = field(default_factory=dict)

    @property
    def entry(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.line)
        return found


def parsed(message: bytes) -> Received:
    """A message of RFC 5424, as loragate writes them."""
    found = _MESSAGE.fullmatch(message)
    assert found is not None, message[:300]
    head = {name: value.decode() for name, value in found.groupdict().items() if name != "line"}
    return Received(int(head["seq"]), head["sha256"], head["id"], found["line"], head)


class SyslogReceiver(socketserver.ThreadingTCPServer):
    """Takes octet-counted messages and keeps them. Its port may be taken again at once."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", port), _Stream)
        self.received: list[Received] = []
        self.connections: set[socket.socket] = set()
        self._context = context

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def seqs(self) -> list[int]:
        return [one.seq for one in self.received]

    def get_request(self) -> tuple[Any, Any]:
        connection, peer = super().get_request()
        if self._context is not None:
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        self.connections.add(connection)
        return connection, peer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that goes away is no error of the receiver."""


class _Stream(socketserver.StreamRequestHandler):
    server: SyslogReceiver

    def handle(self) -> None:
        while digits := self._until_space():
            self.server.received.append(parsed(self.rfile.read(int(digits))))

    def _until_space(self) -> bytes:
        digits = b""
        while (one := self.rfile.read(1)) not in (b" ", b""):
            digits += one
        return digits


@contextmanager
def syslog_receiver(
    port: int = 0, context: ssl.SSLContext | None = None
) -> Iterator[SyslogReceiver]:
    """Listens until the block ends, and then hangs up on everybody."""
    server = SyslogReceiver(port, context)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        for one in list(server.connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        thread.join()


@dataclass
class Collector(logs_service_pb2_grpc.LogsServiceServicer):  # type: ignore[misc]
    """The real OTLP service for logs; keeps what it takes. Thread-safe.

    Attributes:
        refuses: how many records of each call it says that it has refused.
        headers: of the last call.
    """

    address: str = ""
    refuses: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    resource: dict[str, str] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)

    @property
    def seqs(self) -> list[int]:
        return [one.seq for one in self.received]

    def Export(  # noqa: N802
        self, request: wire.ExportLogsServiceRequest, context: grpc.ServicerContext
    ) -> wire.ExportLogsServiceResponse:
        self.headers = {str(key): str(value) for key, value in context.invocation_metadata()}
        answer = wire.ExportLogsServiceResponse()
        if self.refuses and request.resource_logs:
            answer.partial_success.rejected_log_records = self.refuses
            answer.partial_success.error_message = "too many"
            return answer
        for group in request.resource_logs:
            self.resource = {one.key: one.value.string_value for one in group.resource.attributes}
            for scope in group.scope_logs:
                self.received += map(_record, scope.log_records)
        return answer


def _record(record: Any) -> Received:
    values = {one.key: one.value for one in record.attributes}
    return Received(
        values["loragate.log.seq"].int_value,
        values["loragate.log.sha256"].string_value,
        values["loragate.log.kind"].string_value,
        record.body.string_value.encode(),
        {"event": record.event_name, "severity": record.severity_text},
    )


@contextmanager
def log_collector(port: int = 0) -> Iterator[Collector]:
    """Listens on loopback until the block ends."""
    server = grpc.server(ThreadPoolExecutor(2))
    one = Collector()
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(one, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    assert bound, f"port {port} is taken"
    one.address = f"http://127.0.0.1:{bound}"
    server.start()
    try:
        yield one
    finally:
        server.stop(None).wait()
