"""The server: its parts, made and connected in order, and taken down in order."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import torch

from loragate_server.config import Config
from loragate_server.gate.bases import BaseRegistry
from loragate_server.gate.gate import Gate, GateSettings
from loragate_server.gate.intake import IntakeDesk
from loragate_server.gate.pipeline import Pipeline
from loragate_server.gate.worker import Worker
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.metrics import Metrics
from loragate_server.policy.store import PolicyStore
from loragate_server.record.recorder import Recorder
from loragate_server.rpc.server import RpcServer
from loragate_server.startup import (
    intake_settings,
    make_state_folder,
    open_library,
    rpc_settings,
)
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer

_log = logging.getLogger(__name__)

SayReady = Callable[[str, str], None]
"""Told the gRPC and the HTTP address when the server can decide."""


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


async def serve_until_signal(config: Config, say_ready: SayReady) -> bool:
    """Serves until SIGTERM or SIGINT, then ends in order. A second signal ends at once.

    Returns:
        Whether everything in flight was answered.

    Raises:
        StartError: the server cannot start as it is configured.
        NoDecisionError: log, database or policy cannot be used.
    """
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(_serve(config, say_ready, asked := asyncio.Event()))

    def on_signal(name: str) -> None:
        if asked.is_set():
            _log.warning("got %s again; what is in flight is given up", name)
            serving.cancel()
        else:
            _log.info("got %s; draining", name)
            asked.set()

    for one in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(one, on_signal, one.name)
    try:
        return await serving
    except asyncio.CancelledError:
        return False
    finally:
        for one in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(one)


async def _serve(config: Config, say_ready: SayReady, asked: asyncio.Event) -> bool:
    drained = True
    try:
        async with running(config, stop_asked=asked) as server:
            say_ready(server.grpc, server.http)
            await asked.wait()
            drained = await _drain(server, config.drain_grace_s)
    except _StoppedWhileStarting:
        _log.info("stopped before it was ready")
    return drained


class _StoppedWhileStarting(Exception):  # noqa: N818 - it is no error
    """The signal came while models were loaded."""


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
    metrics, readiness = Metrics(), Readiness(("models", "policy", "grpc"))
    async with AsyncExitStack() as stack:
        # Closed in the opposite order: probes and scrapes are answered until the very end.
        web = WebServer(config.listen.http, metrics.registry, readiness)
        stack.push_async_callback(web.close)
        http = await _listening(web.start(), config.listen.http)
        policies = await _follow_policy(config, metrics, readiness, stack)
        recorder = await asyncio.to_thread(
            Recorder, config.database, config.decision_log_file
        )
        stack.push_async_callback(asyncio.to_thread, recorder.close)
        readiness.add_check("record", recorder.check)

        library = await asyncio.to_thread(open_library, config.library_folder)
        served = await _load(config, library, readiness, stop_asked or asyncio.Event())
        _describe(config, served, metrics)
        bases = BaseRegistry(config.base_models[0].name, served)
        worker = Worker(config.gate.queue_limit, metrics)
        gate = Gate(
            settings=GateSettings(
                config.gate.queue_limit, config.gate.byte_budget, config.gate.verdict_cache_size
            ),
            intake=IntakeDesk(Intake(intake_settings(config))),
            bases=bases,
            worker=worker,
            policies=policies,
            pipeline=Pipeline(bases=bases, worker=worker, read=read_adapter, recorder=recorder),
            observer=metrics,
        )
        stack.push_async_callback(gate.close)
        keeper = CopyingKeeper(config, library, bases, worker)
        rpc = RpcServer(rpc_settings(config), gate, keeper, recorder, metrics)
        grpc = await _listening(rpc.start(), config.listen.grpc)
        stack.push_async_callback(rpc.stop)
        stack.callback(readiness.drain)
        readiness.set("grpc")
        if config.tls is not None:
            metrics.follow_certificate(config.tls.cert)
        _log.info("ready: grpc=%s http=%s", grpc, http)
        yield Running(grpc, http, gate, metrics, readiness, policies, recorder)
