"""The closed sets that metric labels come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import grpc
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from loragate.v1 import audit_pb2, concept_pb2
from loragate_server.policy.decision import Decision, Mode
from loragate_server.policy.reasons import REASON_CODES
from loragate_server.rpc.envoy import ext_authz_pb2, ext_proc_pb2

CODES: Final = tuple(code.name for code in grpc.StatusCode)
"""Names of the gRPC status codes."""

DECISION_REASONS: Final = (*REASON_CODES, "other")
"""Values of the label `reason` of `loragate_decisions_total`."""


@dataclass(frozen=True)
class Method:
    """A gRPC method as the labels of the Prometheus ecosystem name it."""

    kind: str
    service: str
    name: str

    UNKNOWN: ClassVar[Method]

    @property
    def path(self) -> str:
        """As gRPC writes it: "/package.Service/Method"."""
        return f"/{self.service}/{self.name}"

    @property
    def labels(self) -> tuple[str, str, str]:
        """Values of grpc_type, grpc_service and grpc_method."""
        return (self.kind, self.service, self.name)


Method.UNKNOWN = Method("unary", "unknown", "unknown")


def served_methods() -> tuple[Method, ...]:
    """Every method that the server can serve, read from the descriptors of its services."""
    files: tuple[FileDescriptor, ...] = (
        audit_pb2.DESCRIPTOR,
        concept_pb2.DESCRIPTOR,
        ext_authz_pb2.DESCRIPTOR,
        ext_proc_pb2.DESCRIPTOR,
        health_pb2.DESCRIPTOR,
        reflection_pb2.DESCRIPTOR,
    )
    return tuple(
        Method(
            _kind(method.client_streaming, method.server_streaming),
            service.full_name,
            method.name,
        )
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
    )


def decision_reason(decision: Decision) -> str:
    """The one reason a decision is counted under.

    A pilot decision that enforcement would have made otherwise is counted as `pilot_mode`: its
    other reasons explain the verdict that did not bind.
    """
    if decision.mode is Mode.PILOT and decision.verdict is not decision.would_be_verdict:
        return "pilot_mode"
    code = decision.reasons[0].code if decision.reasons else "other"
    return code if code in DECISION_REASONS else "other"


def _kind(client_streaming: bool, server_streaming: bool) -> str:
    """The value of grpc_type."""
    if client_streaming:
        return "bidi_stream" if server_streaming else "client_stream"
    return "server_stream" if server_streaming else "unary"
