"""Serves until a signal comes, then drains and ends in order."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable

from loragate_server.app import memory
from loragate_server.app.descriptors import AcceptFailures, raise_descriptor_limit
from loragate_server.app.loading import StoppedWhileStarting
from loragate_server.app.running import running
from loragate_server.config.schema import Config

_log = logging.getLogger(__name__)

END_LIMIT_S = 5.0
"""How long the process may take to close what it opened, after the grace time."""

SWITCH_S = 0.0005
"""How long a thread that reads a large body keeps the interpreter from one that answers a probe.

An answer changes threads some twenty times; Python's 5 ms would make 100 ms of that."""

SayReady = Callable[[str, str], None]
"""Told the gRPC and the HTTP address when the server can decide."""


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
    sys.setswitchinterval(SWITCH_S)
    raise_descriptor_limit()
    AcceptFailures().install(loop)

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
            memory.settle()
            trimming = asyncio.create_task(memory.keep_trimmed())
            say_ready(server.grpc, server.http)
            await asked.wait()
            trimming.cancel()
            drained = await server.drain(config.drain_grace_s, config.drain_delay_s)
            drained = drained and not server.gate.worker.broken
    except StoppedWhileStarting:
        _log.info("stopped before it was ready")
    return drained
