"""The server: its parts, made and connected in order, and taken down in order."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import torch

from loragate_server.app.calibrating import calibration_notes, uncalibrated
from loragate_server.app.descriptors import most_connections
from loragate_server.app.doors import http_check, open_checkpoint, open_relays
from loragate_server.app.extractors import make_extractors
from loragate_server.app.front import Front, open_front, warn_of_rules
from loragate_server.app.loading import load_models
from loragate_server.app.ports import GRPC, listening
from loragate_server.app.reviewing import follow
from loragate_server.app.served import describe, served_states
from loragate_server.app.startup import engine_builder
from loragate_server.app.state import make_state_folder
from loragate_server.app.vitals import require_descriptors
from loragate_server.config.schema import EMBEDDED_POLICY, Config
from loragate_server.gate.bases import BaseRegistry
from loragate_server.gate.gate import Gate
from loragate_server.gate.library import LibraryKeeper
from loragate_server.gate.lineage_book import LineageBook
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.metrics.metrics import Metrics
from loragate_server.policy.store import PolicyStore
from loragate_server.recent import files_for
from loragate_server.record.recorder import Recorder
from loragate_server.rpc.server import RpcServer
from loragate_server.web.readiness import Readiness
from loragate_server.web.traced import traced

_log = logging.getLogger(__name__)

CLOSE_LIMIT_S = 3.0
"""How long the running audit may take to see that nobody waits for it."""


@dataclass(frozen=True)
class Running:
    """A server that takes requests.

    Attributes:
        grpc: address of the gRPC port, with the port that the system chose.
        http: address of the HTTP port.
    """

    grpc: str
    http: str
    gate: Gate
    metrics: Metrics
    readiness: Readiness
    policies: PolicyStore
    recorder: Recorder
    rpc: RpcServer

    async def drain(self, grace_s: float, delay_s: float = 0.0) -> bool:
        """Tells everybody that asks, refuses new questions, and waits for those in flight.

        Args:
            grace_s: for what is in flight; after it, what still waits for the worker is refused.
            delay_s: between telling and refusing, for those who spread calls to hear of it.

        Returns:
            Whether nothing is in flight any more.
        """
        began = time.monotonic()
        drained = False
        try:
            self.readiness.drain()
            self.metrics.ready(False)
            await self.rpc.announce_drain()
            await asyncio.sleep(delay_s)
            await self.rpc.drain()
            drained = await self.gate.drain(grace_s)
        finally:
            if not drained:
                # So that whoever waits hears why, instead of losing the connection.
                self.gate.worker.close(timeout_s=0.0)
                self.rpc.give_up()
        _log.info("%s after %.2f s", "drained" if drained else "gave up", time.monotonic() - began)
        return drained


@asynccontextmanager
async def running(
    config: Config, *, stop_asked: asyncio.Event | None = None
) -> AsyncIterator[Running]:
    """A server from its HTTP port, which answers first, to its gRPC port, which comes last.

    Leaving the block drains within `config.drain_grace_s` and closes everything.

    Raises:
        StartError: the server cannot start as it is configured.
        NoDecisionError: log, database or policy cannot be used.
    """
    make_state_folder(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    async with AsyncExitStack() as stack:
        # Closed in the opposite order: probes and scrapes are answered until the very end.
        front = await open_front(config, stack)
        bases = await _serve_models(config, front, stop_asked or asyncio.Event())
        intake = Intake(
            config.intake,
            config.store_folder,
            front.metrics.corrupt_file,
            remembered=files_for(config.gate.verdict_cache_size),
        )
        intake.start()
        stack.callback(intake.close)
        gate = await _open_gate(config, front, bases, intake, stack)
        server = await _open_rpc(config, front, bases, intake, gate, stack)
        front.readiness.set("grpc")
        front.metrics.ready(True)
        _log.info("ready: grpc=%s http=%s", server.grpc, server.http)
        try:
            yield server
        finally:
            if front.readiness.begun:  # else it has been told to drain already
                await server.drain(config.drain_grace_s)


async def _serve_models(config: Config, front: Front, stop_asked: asyncio.Event) -> BaseRegistry:
    served = await load_models(config, front.library(), front.readiness, stop_asked)
    bases = BaseRegistry(config.base_models[0].name, served)
    describe(config, served, front.metrics)
    front.metrics.follow_served(lambda: served_states(config, bases))
    front.readiness.follow_notes(lambda: calibration_notes(bases))
    front.uncalibrated = lambda: uncalibrated(bases)
    return bases


async def _open_gate(
    config: Config, front: Front, bases: BaseRegistry, intake: Intake, stack: AsyncExitStack
) -> Gate:
    gate = Gate(
        settings=config.gate,
        findings=config.findings,
        intake=intake,
        bases=bases,
        policies=front.policies,
        recorder=front.recorder,
        read=partial(read_adapter, loaders=config.intake.loaders),
        observer=front.metrics,
        reviews=front.reviews,
        known=front.known,
        lineage=await follow(
            LineageBook(
                front.recorder.database,
                front.known,
                remembered=files_for(config.gate.verdict_cache_size),
            ),
            stack,
        ),
        weights=front.weights,
    )
    stack.push_async_callback(gate.close, CLOSE_LIMIT_S)
    front.readiness.add_check("worker", lambda: _require_worker(gate))
    front.readiness.add_check("intake", gate.require_intake)
    front.readiness.add_check("store", intake.check)
    front.readiness.add_check("descriptors", require_descriptors)
    return gate


def _require_worker(gate: Gate) -> None:
    if not gate.worker.alive:
        raise RuntimeError("the thread that audits has ended or hangs")


async def _open_rpc(
    config: Config,
    front: Front,
    bases: BaseRegistry,
    intake: Intake,
    gate: Gate,
    stack: AsyncExitStack,
) -> Running:
    """The gRPC port, and the doors for proxies."""
    keeper = LibraryKeeper(front.library(), bases, gate.worker, engine_builder(config))
    stack.callback(keeper.close)
    front.library = lambda: keeper.library
    front.editor = lambda: keeper
    if config.policy != EMBEDDED_POLICY:  # nobody wrote that one for another library
        keeper.on_change(lambda library: warn_of_rules(front.policies.current, library))
    extractors = make_extractors(config.intercept)
    checkpoint = open_checkpoint(
        config, extractors, gate, intake, front.metrics, front.readiness, stack
    )
    rpc = RpcServer(
        config,
        gate,
        keeper,
        front.recorder,
        front.metrics,
        checkpoint,
        front.tracer,
        reflection=config.reflection,
        max_message_bytes=config.intercept.message_bytes,
        max_connections=most_connections(config.listen.max_connections),
        drain_grace_s=config.drain_grace_s,
    )
    stack.push_async_callback(rpc.stop)
    grpc = await listening(rpc.start(), config.listen.grpc, GRPC)
    if config.tls is not None:
        front.metrics.follow_certificate(config.tls.cert)
    if front.rest is not None:
        front.rest.open(rpc.calls)
    if front.door is not None and checkpoint is not None:
        check = http_check(checkpoint)
        front.door.open(check if front.tracer is None else traced(check, front.tracer))
    if checkpoint is not None:
        await open_relays(config, checkpoint, front.metrics, stack)
    return Running(
        grpc,
        front.http,
        gate,
        front.metrics,
        front.readiness,
        front.policies,
        front.recorder,
        rpc,
    )
