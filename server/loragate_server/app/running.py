"""The server: its parts, made and connected in order, and taken down in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import torch

from loragate_server.app.doors import check_door, http_check, open_checkpoint
from loragate_server.app.folders import make_state_folder, served_library
from loragate_server.app.reviewing import follow_known, follow_reviews, open_console
from loragate_server.app.served import describe, served_states
from loragate_server.app.settings import intake_settings, intercept_extractors, rpc_settings
from loragate_server.app.startup import engine_builder, serve_bases
from loragate_server.app.tracing import make_metrics, open_tracer
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.config.schema import Config, StartError
from loragate_server.gate.bases import BaseRegistry, ServedBase
from loragate_server.gate.gate import Gate, GateSettings
from loragate_server.gate.library import LibraryKeeper
from loragate_server.intake.fetch import Intake
from loragate_server.intake.reader import read_adapter
from loragate_server.metrics.metrics import Metrics
from loragate_server.policy.store import PolicyStore
from loragate_server.record.recorder import Recorder
from loragate_server.rpc.server import RpcServer
from loragate_server.web.readiness import Readiness
from loragate_server.web.server import WebServer
from loragate_server.web.traced import traced

_log = logging.getLogger(__name__)

END_LIMIT_S = 5.0
"""How long the process may take to close what it opened, after the grace time."""
CLOSE_LIMIT_S = 3.0
"""How long of it the running audit may take to see that nobody waits for it."""

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


async def serve_until_signal(
    config: Config, say_ready: SayReady, end_process: Callable[[], None]
) -> bool:
    """Serves until SIGTERM or SIGINT, then ends in order. A second signal ends at once.

    It ends by itself when no audit can be run any more, so that whoever started it starts it again.

    Args:
        config: what to serve.
        say_ready: told when the server can decide.
        end_process: called on a thread of its own `END_LIMIT_S` after everything should have
            ended, whatever still hangs then. What is answered is on disk before it is answered.

    Returns:
        Whether everything in flight was answered, and the end was asked for.

    Raises:
        StartError: the server cannot start as it is configured.
        NoDecisionError: log, database or policy cannot be used.
    """
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def on_broken() -> None:
        _end_at_last(config.drain_delay_s + config.drain_grace_s + END_LIMIT_S, end_process)
        _log.error("no audit can be run any more; draining, to be started again")
        asked.set()

    serving = asyncio.create_task(_serve(config, say_ready, asked, on_broken))

    def on_signal(name: str) -> None:
        grace_s = 0.0 if asked.is_set() else config.drain_delay_s + config.drain_grace_s
        _end_at_last(grace_s + END_LIMIT_S, end_process)
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


def _end_at_last(after_s: float, end_process: Callable[[], None]) -> None:
    """Ends the process even if a thread hangs that nobody can end: a read, a lock, a database."""

    def end() -> None:
        left = sorted(one.name for one in threading.enumerate())
        _log.error("did not end within %.0f s and is ended; threads: %s", after_s, ", ".join(left))
        end_process()

    timer = threading.Timer(after_s, end)
    timer.daemon = True
    timer.start()


async def _serve(
    config: Config, say_ready: SayReady, asked: asyncio.Event, on_broken: Callable[[], None]
) -> bool:
    drained = True
    try:
        async with running(config, stop_asked=asked) as server:
            server.gate.worker.when_broken(on_broken)
            say_ready(server.grpc, server.http)
            await asked.wait()
            drained = await server.drain(config.drain_grace_s, config.drain_delay_s)
            drained = drained and not server.gate.worker.broken
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
    extractors = intercept_extractors(config)
    if config.threads:
        torch.set_num_threads(config.threads)
    metrics, readiness = make_metrics(config), Readiness(("models", "policy", "grpc"))
    async with AsyncExitStack() as stack:
        # Closed in the opposite order: probes and scrapes are answered until the very end.
        tracer = open_tracer(config, stack)
        door = check_door(config) if config.intercept.http else None
        web = WebServer(config.listen.http, metrics.registry, readiness, door)
        stack.push_async_callback(web.close)
        policies = await _follow_policy(config, metrics, readiness, stack)
        recorder = await asyncio.to_thread(Recorder, config.database, config.decision_log_file)
        stack.push_async_callback(asyncio.to_thread, recorder.close)
        readiness.add_check("record", recorder.check)
        metrics.follow_record(recorder.check)
        reviews = await follow_reviews(recorder, stack)
        known = await follow_known(recorder, stack)
        library = await asyncio.to_thread(served_library, config)
        keepers: list[LibraryKeeper] = []  # one, as soon as models are loaded
        console = await open_console(
            config,
            recorder,
            reviews,
            lambda: keepers[0].library if keepers else library,
            metrics,
            stack,
        )
        if console is not None:
            web.mount(console)
        http = await _listening(web.start(), config.listen.http)

        served = await _load(config, library, readiness, stop_asked or asyncio.Event())
        bases = BaseRegistry(config.base_models[0].name, served)
        describe(config, served, metrics)
        metrics.follow_served(lambda: served_states(config, bases))
        intake = Intake(intake_settings(config), metrics.corrupt_file)
        intake.start()
        stack.callback(intake.close)
        gate = Gate(
            settings=GateSettings(
                config.gate.queue_limit,
                config.gate.byte_budget,
                config.gate.verdict_cache_size,
                stuck_after_s=config.gate.stuck_after_s,
            ),
            intake=intake,
            bases=bases,
            policies=policies,
            recorder=recorder,
            read=partial(read_adapter, loaders=config.intake.loaders),
            observer=metrics,
            reviews=reviews,
            known=known,
        )
        stack.push_async_callback(gate.close, CLOSE_LIMIT_S)
        readiness.add_check("worker", lambda: _require_worker(gate))
        readiness.add_check("intake", gate.require_intake)
        keeper = LibraryKeeper(library, bases, gate.worker, engine_builder(config))
        keepers.append(keeper)
        checkpoint = open_checkpoint(config, extractors, gate, intake, metrics, readiness, stack)
        rpc = RpcServer(rpc_settings(config), gate, keeper, recorder, metrics, checkpoint, tracer)
        stack.push_async_callback(rpc.stop)
        grpc = await _listening(rpc.start(), config.listen.grpc)
        if config.tls is not None:
            metrics.follow_certificate(config.tls.cert)
        if door is not None and checkpoint is not None:
            check = http_check(checkpoint)
            door.open(check if tracer is None else traced(check, tracer))
        readiness.set("grpc")
        metrics.ready(True)
        _log.info("ready: grpc=%s http=%s", grpc, http)
        server = Running(grpc, http, gate, metrics, readiness, policies, recorder, rpc)
        try:
            yield server
        finally:
            if readiness.begun:  # else it has been told to drain already
                await server.drain(config.drain_grace_s)


def _require_worker(gate: Gate) -> None:
    if not gate.worker.alive:
        raise RuntimeError("the thread that audits has ended or hangs")


async def _listening(start: Awaitable[str], address: str) -> str:
    try:
        return await start
    except (OSError, RuntimeError, ValueError) as error:
        raise StartError(f"cannot listen on {address}: {error}") from error


async def _follow_policy(
    config: Config, metrics: Metrics, readiness: Readiness, stack: AsyncExitStack
) -> PolicyStore:
    policies = await asyncio.to_thread(PolicyStore, config.policy.expanduser())
    metrics.follow_policy(policies)
    policies.start()
    stack.push_async_callback(asyncio.to_thread, policies.stop)
    readiness.set("policy")
    return policies


async def _load(
    config: Config, library: ConceptLibrary, readiness: Readiness, stop_asked: asyncio.Event
) -> tuple[ServedBase, ...]:
    """Loads the models on a thread of its own, until it is done or the server is told to stop."""
    given_up = threading.Event()
    loading = ""

    def report(stage: str, fraction: float) -> None:
        nonlocal loading
        if given_up.is_set():
            raise _StoppedWhileStarting
        if stage != loading:
            loading = stage
            _log.info("%s", stage)
        readiness.set("models", f"{stage}, {fraction:.0%}")

    work = asyncio.create_task(asyncio.to_thread(serve_bases, config, library, report))
    stop = asyncio.create_task(stop_asked.wait())
    try:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        if stop.done():
            given_up.set()
        served = await work
    finally:
        given_up.set()
        stop.cancel()
    readiness.set("models")
    return served
