"""The HTTP port: metrics for Prometheus, liveness and readiness for whoever runs the server."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Middleware
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from loragate_server.config.listen import split_address
from loragate_server.places import Places
from loragate_server.threads import DaemonPool
from loragate_server.web.check import PATH, CheckDoor
from loragate_server.web.guard import ANSWER_WITHIN_S, GuardedConnection, one_at_work, within
from loragate_server.web.readiness import Readiness
from loragate_server.web.witness import MAX_QUESTION_BYTES, WitnessDoor

SMALL_BODY_BYTES = 1024
SCRAPES_AT_ONCE = 2
FORM_BODY_BYTES = 64 * 1024
CONSOLE = "/console"
EXPORTS = f"{CONSOLE}/verdicts/export."
"""Files that are written for as long as they are read; the page has a limit of its own."""


class ApiDoor(Protocol):
    """What the HTTP port needs to know of the API, which lies behind a wall.

    Attributes:
        prefixes: of its paths, which have limits of their own.
        middleware: around all answers.
    """

    prefixes: tuple[str, ...]
    middleware: Middleware

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds the routes."""
        ...


def web_application(
    registry: CollectorRegistry,
    readiness: Readiness,
    door: CheckDoor | None = None,
    console: web.Application | None = None,
    witness: WitnessDoor | None = None,
    api: ApiDoor | None = None,
) -> web.Application:
    """`/metrics`, `/healthz` and `/readyz` for GET or HEAD only; the rest if it is given."""
    # Not the loop's own threads: what hangs there must not take the metrics away.
    scrapes = DaemonPool(SCRAPES_AT_ONCE, "metrics")

    async def metrics(request: web.Request) -> web.Response:
        # OpenMetrics, with exemplars, for those who ask for it; the text format for the rest.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.wrap_future(scrapes.submit(encode, registry))
        response = web.Response(
            body=body, headers={"Content-Type": content_type}, zlib_executor=scrapes
        )
        response.enable_compression()
        return response

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        ready, parts = await readiness.report()
        told = {"ready": ready, "parts": parts, "notes": readiness.notes}
        return web.json_response(told, status=200 if ready else 503)

    limit = SMALL_BODY_BYTES if console is None else FORM_BODY_BYTES
    if door is not None:
        limit = max(limit, door.settings.max_body_bytes)
    if witness is not None:
        limit = max(limit, MAX_QUESTION_BYTES)
    unhurried = (PATH, EXPORTS) if api is None else (PATH, EXPORTS, *api.prefixes)
    guards = [one_at_work, within(ANSWER_WITHIN_S, unless=unhurried)]
    if api is not None:
        guards.append(api.middleware)
    application = web.Application(client_max_size=limit, middlewares=guards)
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    if door is not None:
        door.add_to(application.router)
    if witness is not None:
        witness.add_to(application.router)
    if api is not None:
        api.add_to(application.router)
    if console is not None:
        application.add_subapp(CONSOLE, console)
    application.on_response_prepare.append(_plain_headers)
    return application


class WebServer:
    """Serves `web_application` in the running event loop, from `start` to `close`."""

    def __init__(
        self,
        address: str,
        registry: CollectorRegistry,
        readiness: Readiness,
        door: CheckDoor | None = None,
        *,
        max_connections: int = 1024,
        idle_s: float = 30.0,
    ) -> None:
        """Makes the server.

        Args:
            address: where to listen.
            registry: of the metrics.
            readiness: of the server.
            door: for proxies, if they may ask here.
            max_connections: beyond, idle ones make room for new ones.
            idle_s: how long a peer may owe a request, or leave an answer unread.
        """
        self._host, self._port = split_address(address)
        self._places = Places(max_connections)
        self._idle_s = idle_s
        self._registry = registry
        self._readiness = readiness
        self._door = door
        self._console: web.Application | None = None
        self._witness: WitnessDoor | None = None
        self._api: ApiDoor | None = None
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None

    def mount(self, console: web.Application) -> None:
        """Adds the console; before `start`."""
        self._console = console

    def mount_witness(self, witness: WitnessDoor) -> None:
        """Adds the door of a witness; before `start`."""
        self._witness = witness

    def mount_api(self, api: ApiDoor) -> None:
        """Adds the API as JSON; before `start`."""
        self._api = api

    async def start(self) -> str:
        """Listens, and returns the address with the port that the system chose.

        Raises:
            OSError: the address cannot be bound.
        """
        runner = self._runner = web.AppRunner(
            web_application(
                self._registry,
                self._readiness,
                self._door,
                self._console,
                self._witness,
                self._api,
            ),
            access_log=None,
            logger=_quiet_log(),
            handle_signals=False,
            shutdown_timeout=2.0,
            auto_decompress=False,  # a check sees the body as it was sent
            # Counts from the start of a connection too, so it bounds the wait for a first header.
            keepalive_timeout=self._idle_s,
            lingering_time=2.0,  # in which the rest of a refused body may come
        )
        await runner.setup()
        make = runner.server
        assert make is not None  # noqa: S101 - there is one after setup
        self._listening = await asyncio.get_running_loop().create_server(
            lambda: GuardedConnection(make(), self._places, self._idle_s), self._host, self._port
        )
        port = self._listening.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{port}"

    async def close(self) -> None:
        """Stops listening and ends open connections. Safe to call twice."""
        if self._listening is not None:
            self._listening.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def __aenter__(self) -> WebServer:
        """Starts."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes."""
        await self.close()


def _quiet_log() -> logging.Logger:
    """Where aiohttp logs; whoever speaks no HTTP, as a gRPC client does, is one line."""
    log = logging.getLogger("loragate_server.web.http")
    log.addFilter(_one_line)  # adding it again changes nothing
    return log


def _one_line(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg, record.args = (
            "a request that is no HTTP/1.1 was refused (a gRPC client at the HTTP port?): %s",
            (" ".join(str(error.message).split())[:200],),
        )
        record.exc_info = record.exc_text = None
    return True


async def _plain_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Names no software, and keeps probes out of caches."""
    response.headers.pop("Server", None)
    response.headers.setdefault("Cache-Control", "no-store")
