"""Connections of a relay from their first moment, before anything is known of them."""

from __future__ import annotations

import asyncio
from typing import Any

from websockets.asyncio.server import ServerConnection

from loragate_server.places import Place, Places


class CountedConnection(ServerConnection):
    """A connection that has a place, or is cut as soon as it is there.

    Attributes:
        place: what it holds; one that has not opened yet may have to make room.
    """

    place: Place | None = None

    def __init__(self, places: Places, *args: Any, **settings: Any) -> None:
        self._places = places
        super().__init__(*args, **settings)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes a place."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a server's always is
        address = transport.get_extra_info("peername") or ("",)
        self.place = self._places.enter(str(address[0]), transport.abort)
        super().connection_made(transport)
        if self.place is None:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives the place back."""
        if self.place is not None:
            self.place.leave()
        super().connection_lost(exc)

    def opened(self) -> None:
        """It carries messages from now on, and nobody takes its place."""
        if self.place is not None:
            self.place.works()
