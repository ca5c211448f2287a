"""`Relay`: the port to which a proxy sends the WebSockets of one image server."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from loragate_server.checkpoint.outcome import CheckOutcome
from loragate_server.config.intercept import RelayEntry
from loragate_server.config.listen import split_address
from loragate_server.intercept.request import HttpRequest
from loragate_server.places import Places
from loragate_server.relay.counted import CountedConnection
from loragate_server.relay.ending import FAILED, STOPPING, cut
from loragate_server.relay.observer import Cause, RelayObserver
from loragate_server.relay.opening import (
    AUTHORIZATION,
    NotOpenedError,
    connected,
    response_of,
    shown,
)
from loragate_server.relay.session import Check, Session

Authorize = Callable[[str], str]
"""Gives the name of who shows this token; raises PermissionError with a sentence."""

Open = Callable[[HttpRequest, str], CheckOutcome]
"""Whether a WebSocket may open, for a proxy of that name."""

CheckOf = Callable[[str], Check]
"""Checks messages that come by the proxy of that name."""

_log = logging.getLogger(__name__)

# What the library says of a connection quotes its headers, in which secrets travel.
_wire = logging.Logger("loragate_server.relay.wire", logging.CRITICAL + 1)


class Relay:
    """Listens from `start` to `close`. Belongs to one event loop.

    Args:
        name: of the extractor, for metrics and logs.
        settings: of this relay.
        max_message_bytes: of one message of a client.
        authorize: knows the proxies.
        may_open: knows which WebSockets may open.
        check_of: checks messages.
        observer: counts.
    """

    def __init__(
        self,
        name: str,
        settings: RelayEntry,
        max_message_bytes: int,
        authorize: Authorize,
        may_open: Open,
        check_of: CheckOf,
        observer: RelayObserver,
    ) -> None:
        self._name = name
        self._settings = settings
        self._max_message_bytes = max_message_bytes
        self._authorize = authorize
        self._may_open = may_open
        self._check_of = check_of
        self._observer = observer
        self._server: Server | None = None
        self._stopping = False
        self._open: dict[ServerConnection, Session | None] = {}
        self._ends: set[asyncio.Task[None]] = set()
        # Half of them may be on their way to open, or be refused.
        self._places = Places(2 * settings.max_connections)

    async def start(self) -> str:
        """Listens, and returns the address with the port that the system chose.

        Raises:
            OSError: the address cannot be bound.
        """
        host, port = split_address(self._settings.listen)
        self._server = await serve(
            self._serve,
            host,
            port,
            process_request=self._opening,
            select_subprotocol=self._subprotocol,
            # Without an extension for it no peer can send a message that grows when unpacked.
            compression=None,
            max_size=self._max_message_bytes,
            max_queue=4,
            # Twice: so that one whose image server is late is told of it.
            open_timeout=2 * self._settings.open_timeout_s,
            ping_interval=self._settings.ping_interval_s,
            ping_timeout=self._settings.message_timeout_s,
            close_timeout=self._settings.close_timeout_s,
            server_header=None,
            logger=_wire,
            create_connection=self._connection,  # type: ignore[arg-type]
        )
        chosen = self._server.sockets[0].getsockname()[1]
        return f"[{host}]:{chosen}" if ":" in host else f"{host}:{chosen}"

    async def close(self) -> None:
        """Takes no further connection and ends those that are open. Safe to call twice."""
        self._stopping = True
        if self._server is not None:
            self._server.close(reason=STOPPING.reason)
            await self._server.wait_closed()
        await asyncio.gather(*self._ends, return_exceptions=True)

    def _connection(self, *args: Any, **settings: Any) -> ServerConnection:
        return CountedConnection(self._places, *args, **settings)

    async def _opening(self, client: ServerConnection, request: Request) -> Response | None:
        """None where the connection opens; the image server's part is open then."""
        try:
            identity = self._admitted(request)
            opening = shown(request)
            outcome = self._may_open(opening, identity)
            if outcome.denial is not None:
                return response_of(outcome.denial)
            self._open[client] = None
            if isinstance(client, CountedConnection):
                client.opened()
            self._when_closed(client)
            upstream = await connected(self._settings, request)
            if client not in self._open:
                await upstream.close()
                raise NotOpenedError(499, "client_gone", "The client has gone.")
        except NotOpenedError as error:
            _log.info("relay %s opens nothing: %s", self._name, error.code)
            return error.response
        except Exception as error:
            self._failed(error)
            return NotOpenedError(503, "relay_failed", "See the log of loragate-server.").response
        self._open[client] = Session(
            opening, client, upstream, self._settings, self._check_of(identity)
        )
        self._observer.relay_connections(self._name, len(self._open))
        return None

    def _admitted(self, request: Request) -> str:
        """The name of the proxy that shows a connection.

        Raises:
            NotOpenedError: it may not, or there are too many.
        """
        try:
            tokens = request.headers.get_all(AUTHORIZATION)
            identity = self._authorize(tokens[0] if len(tokens) == 1 else "")
        except PermissionError as error:
            raise NotOpenedError(401, "unauthenticated", str(error)) from error
        if len(self._open) >= self._settings.max_connections:
            raise NotOpenedError(
                503,
                "connections_full",
                f"The relay carries {len(self._open)} connections already. Ask again later, or "
                "raise its max_connections.",
            )
        return identity

    def _subprotocol(self, client: ServerConnection, offered: object) -> Subprotocol | None:
        """What the image server has chosen."""
        session = self._open.get(client)
        return session.upstream.subprotocol if session else None

    def _when_closed(self, client: ServerConnection) -> None:
        """Ends the image server's part with the client's, however far the client has come."""

        async def end() -> None:
            await client.wait_closed()
            session = self._open.pop(client, None)
            self._observer.relay_connections(self._name, len(self._open))
            if session is not None and not session.begun:
                await session.upstream.close(CloseCode.GOING_AWAY)

        task = asyncio.create_task(end())
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)

    async def _serve(self, client: ServerConnection) -> None:
        session = self._open.get(client)
        if session is None:  # the client has gone as soon as it had come
            return
        ending = FAILED
        try:
            ending = await session.carry()
        except Exception as error:
            self._failed(error)
        if self._stopping and ending.cause in (Cause.CLIENT, Cause.BROKEN):
            ending = STOPPING
        self._observer.relay_ended(self._name, ending.cause)
        if ending.cause not in (Cause.CLIENT, Cause.UPSTREAM):
            _log.info("relay %s ended a connection: %s", self._name, ending.cause)
        await asyncio.gather(
            client.close(ending.code, cut(ending.reason)),
            session.upstream.close(ending.upstream_code, cut(ending.upstream_reason)),
        )

    def _failed(self, error: Exception) -> None:
        """The exception's text may quote a message, so it is not logged."""
        frames = "".join(traceback.format_tb(error.__traceback__))
        _log.error("relay %s failed with %s\n%s", self._name, type(error).__name__, frames)
