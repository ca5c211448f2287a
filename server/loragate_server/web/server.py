"""The HTTP port: metrics for Prometheus, liveness and readiness for whoever runs the server."""

from __future__ import annotations

import asyncio
from types import TracebackType

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from loragate_server.config import split_address
from loragate_server.web.readiness import Readiness


def web_application(registry: CollectorRegistry, readiness: Readiness) -> web.Application:
    """`/metrics`, `/healthz` and `/readyz`; nothing else, and GET or HEAD only."""

    async def metrics(request: web.Request) -> web.Response:
        # OpenMetrics, with exemplars, for those who ask for it; the text format for the rest.
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.to_thread(encode, registry)
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def readyz(_: web.Request) -> web.Response:
        ready, parts = await readiness.report()
        return web.json_response({"ready": ready, "parts": parts}, status=200 if ready else 503)

    application = web.Application(client_max_size=1024)
    application.router.add_get("/metrics", metrics)
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.on_response_prepare.append(_plain_headers)
    return application


class WebServer:
    """Serves `web_application` in the running event loop, from `start` to `close`."""

    def __init__(self, address: str, registry: CollectorRegistry, readiness: Readiness) -> None:
        self._host, self._port = split_address(address)
        application = web_application(registry, readiness)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=2.0
        )

    async def start(self) -> str:
        """Listens, and returns the address with the port that the system chose.

        Raises:
            OSError: the address cannot be bound.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port).start()
        port = self._runner.addresses[0][1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{port}"

    async def close(self) -> None:
        """Stops listening and ends open connections. Safe to call twice."""
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


async def _plain_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Names no software, and keeps probes out of caches."""
    response.headers.pop("Server", None)
    response.headers["Cache-Control"] = "no-store"
