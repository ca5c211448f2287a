"""`OtlpSink`: lines as log records of OpenTelemetry, to a collector over gRPC.

Records are made by the SDK and encoded by its exporter's encoder. The call is made here, since the
exporter keeps to itself what a collector answered: which error, and how many records it refused.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit

import grpc
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from loragate_server import __version__
from loragate_server.config.devices import OtlpTarget, read_headers
from loragate_server.record.devices.line import DeviceError, LogLine

_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Channels of a process share the pauses between their attempts otherwise."""


class OtlpSink:
    """Sends to one collector."""

    def __init__(self, target: OtlpTarget, timeout_s: float) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._channel: grpc.Channel | None = None
        self._scope = InstrumentationScope("loragate_server.record", __version__)
        self._resource = Resource.create(
            {
                "service.name": target.service_name,
                "service.version": __version__,
                "service.instance.id": f"{socket.gethostname()}-{os.getpid()}",
            }
        )

    def take(self, lines: Sequence[LogLine]) -> None:
        """Exports them; the collector has to accept all."""
        self._export(encode_logs([self._record(one) for one in lines]))

    def probe(self) -> None:
        """Exports nothing, which a collector answers as well."""
        self._export(ExportLogsServiceRequest())

    def close(self) -> None:
        """Closes the channel."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _export(self, request: ExportLogsServiceRequest) -> None:
        try:
            headers: tuple[tuple[str, str], ...] = ()
            if self._target.headers_file is not None:
                headers = read_headers(self._target.headers_file.expanduser())
            if self._channel is None:
                self._channel = self._open()
            stub = LogsServiceStub(self._channel)  # type: ignore[no-untyped-call]
            answer = stub.Export(request, timeout=self._timeout_s, metadata=headers)
        except grpc.RpcError as error:
            self.close()  # the next attempt does not wait for the pause of this channel
            raise DeviceError(f"{self._named}: {_cause(error)}") from error
        except (OSError, ValueError) as error:
            raise DeviceError(f"{self._named}: {error}") from error
        if refused := answer.partial_success.rejected_log_records:
            why = answer.partial_success.error_message[:200]
            raise DeviceError(f"{self._named}: {refused} lines were refused: {why}")

    @property
    def _named(self) -> str:
        return f"{self._target.endpoint} does not take it"

    def _open(self) -> grpc.Channel:
        address = urlsplit(self._target.endpoint)
        target = address.netloc if address.port else f"{address.netloc}:4317"
        if not self._target.secure:
            return grpc.insecure_channel(target, _OPTIONS)
        ca_file = self._target.ca_file
        roots = None if ca_file is None else ca_file.expanduser().read_bytes()
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), _OPTIONS)

    def _record(self, line: LogLine) -> ReadableLogRecord:
        record = LogRecord(
            timestamp=_nanoseconds(line.time),
            observed_timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO2,
            severity_text="NOTICE",
            body=line.text.decode("ascii", "replace"),
            attributes={
                "loragate.log.seq": line.link.seq,
                "loragate.log.sha256": line.link.sha256,
                "loragate.log.kind": line.kind,
            },
            event_name=f"loragate.{line.kind}",
        )
        return ReadableLogRecord(record, self._resource, self._scope)


def _nanoseconds(moment: str) -> int:
    try:
        return round(datetime.fromisoformat(moment).timestamp() * 1e9)
    except ValueError:
        return time.time_ns()


def _cause(error: grpc.RpcError) -> str:
    code = getattr(error, "code", lambda: None)()
    details = str(getattr(error, "details", lambda: "")() or "")
    return f"{getattr(code, 'name', 'no answer')} {details.splitlines()[0] if details else ''}"[
        :300
    ]
