"""What keeps idle and slow peers of the HTTP port from taking it away from others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from aiohttp import web

from loragate_server.places import Place, Places

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ANSWER_WITHIN_S = 60.0
"""For one request, body and all, where the handler has no limit of its own."""


class GuardedConnection(asyncio.Protocol):
    """Hands a connection on to aiohttp, for as long as it has a place and reads what it is sent.

    Args:
        inner: aiohttp's protocol.
        places: of the port.
        idle_s: how long a peer may leave an answer unread before the connection is cut.
    """

    def __init__(self, inner: asyncio.Protocol, places: Places, idle_s: float) -> None:
        self._inner = inner
        self._places = places
        self._idle_s = idle_s
        self._cutting: asyncio.TimerHandle | None = None
        self.when_lost: set[Callable[[], object]] = set()
        self.place: Place | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a place, or cuts the connection before aiohttp sees it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a server's always is
        self._transport = transport
        address = transport.get_extra_info("peername") or ("",)
        self.place = self._places.enter(str(address[0]), transport.abort)
        if self.place is None:
            transport.abort()
        else:
            self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of a request."""
        if self.place is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """The peer sends no more."""
        return None if self.place is None else self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives the place back."""
        self._let_be()
        for tell in tuple(self.when_lost):
            tell()
        if self.place is not None:
            self.place.leave()
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """The peer does not read its answer; it gets a while to."""
        if self._cutting is None:
            loop = asyncio.get_running_loop()
            self._cutting = loop.call_later(self._idle_s, self._transport.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._let_be()
        self._inner.resume_writing()

    def _let_be(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None


@web.middleware
async def one_at_work(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A peer whose request has come owes nothing until it is answered."""
    place = _place_of(request)
    if place is None:
        return await handler(request)
    place.works()
    try:
        return await handler(request)
    finally:
        place.waits()


def within(seconds: float, unless: tuple[str, ...]) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A middleware that ends what takes too long with 408, but for paths that begin with `unless`.

    Most of the time is the peer's, who sends a body slowly.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        if request.path.startswith(unless):
            return await handler(request)
        try:
            async with asyncio.timeout(seconds):
                return await handler(request)
        except TimeoutError:
            return too_slow()

    return middleware


@asynccontextmanager
async def owed(request: web.Request, within_s: float) -> AsyncIterator[None]:
    """Inside it the peer owes the body, and may have to make room for another one.

    Raises:
        TimeoutError: it did not come in time.
    """
    place = _place_of(request)
    if place is not None:
        place.waits()
    try:
        async with asyncio.timeout(within_s):
            yield
    finally:
        if place is not None:
            place.works()


@contextmanager
def while_connected(request: web.Request, gone: Callable[[], object]) -> Iterator[None]:
    """Inside it `gone` is called as soon as the peer leaves, or at once if it has left already."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    if not isinstance(protocol, GuardedConnection):
        if request.transport is None:
            gone()
        yield
        return
    protocol.when_lost.add(gone)
    try:
        yield
    finally:
        protocol.when_lost.discard(gone)


def too_slow() -> web.Response:
    """The answer to a peer that sends too slowly; the connection ends with it."""
    response = web.json_response(
        {"error": {"code": "too_slow", "message": "The request did not come in time."}}, status=408
    )
    response.force_close()
    return response


def _place_of(request: web.Request) -> Place | None:
    """None once the peer has gone."""
    protocol = None if request.transport is None else request.transport.get_protocol()
    return protocol.place if isinstance(protocol, GuardedConnection) else None
