"""The gRPC front: services, interceptors, health, reflection and credentials on one port."""

from __future__ import annotations

import logging
import time

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.reflection import SERVICE_NAME as REFLECTION
from grpc_reflection.v1alpha.reflection import enable_server_reflection

from loragate.v1 import audit_pb2, audit_pb2_grpc, concept_pb2, concept_pb2_grpc
from loragate_server.checkpoint.checkpoint import Checkpoint
from loragate_server.config.listen import MESSAGE_BYTES, GrpcPort, Listen
from loragate_server.gate.gate import Gate
from loragate_server.gate.library import LibraryKeeper
from loragate_server.rpc.access import AUTHORIZATION, EXTERNAL_PROCESSOR, WITH_FILES, Access
from loragate_server.rpc.audit_service import AuditService, Records
from loragate_server.rpc.authz_service import AuthzService, authz_handler
from loragate_server.rpc.calls import Calls
from loragate_server.rpc.chain import Chain
from loragate_server.rpc.concept_service import ConceptService
from loragate_server.rpc.credentials import server_credentials
from loragate_server.rpc.ext_proc_service import ExtProcService, ext_proc_handler
from loragate_server.rpc.interceptors import (
    CallCounter,
    Doorkeeper,
    Refusals,
    RequestIds,
    Traces,
)
from loragate_server.rpc.observer import CallObserver
from loragate_server.rpc.turnstile import SPARE_CALLS, Turnstile
from loragate_server.rpc.unread import RefusedLately, Unread
from loragate_server.tracing.tracer import Tracer

SERVICES = (
    audit_pb2.DESCRIPTOR.services_by_name["AuditService"].full_name,
    concept_pb2.DESCRIPTOR.services_by_name["ConceptService"].full_name,
)

LAST_WORDS_S = 1.0
"""How long answers that are ready get to leave when the grace time is over."""

PING_AFTER_S, PING_WITHIN_S = 30.0, 15.0
"""Silence after which the server pings, and the time that a ping may take."""

LEAST_PING_INTERVAL_S = 10.0
"""Clients that ping more often are disconnected."""

IDLE_CONNECTION_S = 300.0
"""A connection without calls for so long is ended; clients connect anew by themselves."""

OLD_CONNECTION_GRACE_S = 60.0
"""Time that calls get to end on a connection that is too old."""

_log = logging.getLogger(__name__)
_Status = health_pb2.HealthCheckResponse


class RpcServer:
    """Serves the API in the running event loop, from `start` to `stop`.

    Attributes:
        calls: the same methods for callers on the HTTP port, who have the same limits.
    """

    def __init__(
        self,
        port: GrpcPort,
        gate: Gate,
        keeper: LibraryKeeper,
        records: Records,
        observer: CallObserver,
        checkpoint: Checkpoint | None = None,
        tracer: Tracer | None = None,
        *,
        reflection: bool = False,
        max_message_bytes: int = MESSAGE_BYTES,
        max_connections: int = 1024,
        drain_grace_s: float = 20.0,
    ) -> None:
        """Makes the server; it answers proxies only where there is a checkpoint.

        Args:
            port: where to listen, and who may call.
            gate: decides.
            keeper: of the concept library.
            records: of past decisions.
            observer: told of every call.
            checkpoint: for proxies.
            tracer: for spans.
            reflection: whether clients may ask for the API's description.
            max_message_bytes: of one message in either direction.
            max_connections: at once; those beyond are closed.
            drain_grace_s: how long calls in flight may go on after `drain`.
        """
        self._port = port
        self._drain_grace_s = drain_grace_s
        self._stop_by_monotonic_s = 0.0
        self._doorkeeper = Doorkeeper(Access(port))
        self._http_doorkeeper = Doorkeeper(Access(port, http=True))
        self._health = health.aio.HealthServicer()
        turnstile = Turnstile(port.listen.max_concurrent_calls, port.listen.idle_timeout_s)
        lately = RefusedLately()

        def through(
            doorkeeper: Doorkeeper, turnstile: Turnstile
        ) -> list[grpc.aio.ServerInterceptor]:
            """The outermost first. Messages are read inside of the turnstile alone."""
            unread = Unread(WITH_FILES, gate.require_room, lately)
            return [*_around(observer, tracer), doorkeeper, unread, turnstile]

        self.calls = Calls(through(self._http_doorkeeper, turnstile.beside()))
        self._server = grpc.aio.server(
            interceptors=[Chain(through(self._doorkeeper, turnstile))],
            options=_options(port.listen, max_message_bytes, max_connections),
            maximum_concurrent_rpcs=port.listen.max_concurrent_calls + SPARE_CALLS,
        )
        audits = AuditService(gate, records, port.listen, lately)
        concepts = ConceptService(keeper)
        for each in (self._server, self.calls):
            audit_pb2_grpc.add_AuditServiceServicer_to_server(audits, each)  # type: ignore[no-untyped-call]
            concept_pb2_grpc.add_ConceptServiceServicer_to_server(concepts, each)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._services: tuple[str, ...] = SERVICES
        if checkpoint is not None:
            self._services = (*SERVICES, AUTHORIZATION, EXTERNAL_PROCESSOR)
            self._server.add_generic_rpc_handlers(
                (
                    authz_handler(AuthzService(checkpoint)),
                    ext_proc_handler(ExtProcService(checkpoint)),
                )
            )
        if reflection:
            names = (*self._services, health.SERVICE_NAME, REFLECTION)
            enable_server_reflection(names, self._server)

    async def start(self) -> str:
        """Listens, and returns the address with the port that the system chose.

        Raises:
            ValueError: a certificate is of no use.
            RuntimeError: the address cannot be bound.
        """
        listening = self._listen(self._port.listen.grpc)
        await self._server.start()
        for service in ("", *self._services):
            await self._health.set(service, _Status.SERVING)
        return listening

    async def announce_drain(self) -> None:
        """Tells health checks; calls are still taken."""
        await self._health.enter_graceful_shutdown()

    async def drain(self) -> None:
        """Refuses new calls, which begins the grace time; those in flight go on."""
        if not self._doorkeeper.draining:
            self._doorkeeper.draining = self._http_doorkeeper.draining = True
            self._stop_by_monotonic_s = time.monotonic() + self._drain_grace_s
        await self.announce_drain()

    def give_up(self) -> None:
        """Ends the grace time."""
        self._stop_by_monotonic_s = time.monotonic()

    async def stop(self) -> None:
        """Ends; calls in flight get what is left of the grace time. Safe to call twice."""
        await self.drain()
        left_s = self._stop_by_monotonic_s - time.monotonic()
        await self._server.stop(max(left_s, LAST_WORDS_S))

    def _listen(self, address: str) -> str:
        tls, local = self._port.tls, address.startswith("unix:")
        if tls is None or local:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, server_credentials(tls))
        if local:
            return address
        return f"{address.rpartition(':')[0]}:{port}"


def _around(observer: CallObserver, tracer: Tracer | None) -> list[grpc.aio.ServerInterceptor]:
    """The outermost first: everything that is refused has an id and is counted."""
    traces = [] if tracer is None else [Traces(tracer)]
    return [RequestIds(), *traces, CallCounter(observer), Refusals()]


def _options(listen: Listen, max_message_bytes: int, max_connections: int) -> list[tuple[str, int]]:
    options = [
        # Two servers on one port would answer in turns, each with its own policy.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.max_allowed_incoming_connections", max_connections),
        # Whoever connects and does not speak HTTP/2, or TLS where it is due, holds a descriptor.
        ("grpc.server_handshake_timeout_ms", _ms(listen.idle_timeout_s)),
        ("grpc.max_connection_idle_ms", _ms(IDLE_CONNECTION_S)),
        ("grpc.keepalive_time_ms", _ms(PING_AFTER_S)),
        ("grpc.keepalive_timeout_ms", _ms(PING_WITHIN_S)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(LEAST_PING_INTERVAL_S)),
    ]
    if listen.connection_age_s is not None:
        options += [
            ("grpc.max_connection_age_ms", _ms(listen.connection_age_s)),
            ("grpc.max_connection_age_grace_ms", _ms(OLD_CONNECTION_GRACE_S)),
        ]
    return options


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
