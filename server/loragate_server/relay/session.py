"""`Session`: one open WebSocket. No message of the client leaves before it was allowed to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from loragate_server.checkpoint.outcome import CheckOutcome
from loragate_server.config.intercept import RelayEntry
from loragate_server.intercept.request import HttpRequest, Message
from loragate_server.progress import Leash
from loragate_server.relay.ending import (
    TOO_MANY_FRAGMENTS,
    Ending,
    by_client,
    by_upstream,
    idle,
    refused,
    slow,
)
from loragate_server.relay.observer import Cause

Check = Callable[[HttpRequest, Leash], Awaitable[CheckOutcome]]
"""Whether a message may pass."""


_MAX_FRAGMENTS = 4096
"""Of one message: those that are empty count for nothing in its size."""


class _EndedError(Exception):
    """Leaves the loop of one direction."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.cause)
        self.ending = ending


@dataclass
class Session:
    """Carries messages between a client and an image server until one of them ends it.

    Messages of the client go one by one: while one is checked, those behind it wait, here or in
    the client. A message is sent on joined and as it was checked, or as the check rewrote it.

    Attributes:
        begun: somebody carries, and will close both sides.
    """

    opening: HttpRequest
    client: ServerConnection
    upstream: ClientConnection
    settings: RelayEntry
    check: Check
    begun: bool = False
    _said_at: float = 0.0

    async def carry(self) -> Ending:
        """Until one side, a refusal or a limit ends it; closes nothing."""
        self.begun, self._said_at = True, time.monotonic()
        tasks = [
            asyncio.create_task(one) for one in (self._upward(), self._downward(), self._idle())
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # A refusal says more than the closing that another task may have seen meanwhile.
            return next(one.result() for one in tasks if one.done())
        finally:
            await _cancelled(*tasks)

    async def _upward(self) -> Ending:
        try:
            while True:
                said = await self._from_client()
                outcome = await self._verdict(said)
                if outcome.denial is not None:
                    return refused(outcome, outcome.denial)
                if outcome.body is not None:
                    said = outcome.body.decode()
                await self._to(self.upstream, said)
        except _EndedError as ended:
            return ended.ending

    async def _downward(self) -> Ending:
        try:
            while True:
                try:
                    said = await self.upstream.recv()
                except ConnectionClosed as error:
                    return by_upstream(error)
                await self._to(self.client, said)
        except _EndedError as ended:
            return ended.ending

    async def _idle(self) -> Ending:
        limit = self.settings.idle_timeout_s
        while (left := self._said_at + limit - time.monotonic()) > 0:
            await asyncio.sleep(left)
        return idle(limit)

    async def _from_client(self) -> str | bytes:
        """The next message, its fragments joined; one that has begun must not take for ever."""
        fragments = self.client.recv_streaming()
        try:
            parts = [await anext(fragments)]
            async with asyncio.timeout(self.settings.message_timeout_s):
                async for part in fragments:
                    parts.append(part)
                    if len(parts) > _MAX_FRAGMENTS:
                        raise _EndedError(TOO_MANY_FRAGMENTS)
        except ConnectionClosed as error:
            raise _EndedError(by_client(error)) from error
        except TimeoutError as error:
            raise _EndedError(slow("client", "to send a message")) from error
        self._said_at = time.monotonic()
        texts = [one for one in parts if isinstance(one, str)]
        return "".join(texts) if texts else b"".join(one for one in parts if isinstance(one, bytes))

    async def _verdict(self, said: str | bytes) -> CheckOutcome:
        """Whether a message may pass. When the client goes meanwhile, the audit stops."""
        kind = Message.TEXT if isinstance(said, str) else Message.BINARY
        body = said.encode() if isinstance(said, str) else said
        # The headers are those of the opening, and say nothing of a message.
        request = HttpRequest(
            self.opening.method, self.opening.path, self.opening.query, {}, body, message=kind
        )
        leash = Leash(deadline_monotonic_s=time.monotonic() + self.settings.check_timeout_s)
        check = asyncio.ensure_future(self.check(request, leash))
        gone = asyncio.create_task(self.client.wait_closed())
        try:
            await asyncio.wait({check, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not check.done():
                raise _EndedError(Ending(Cause.CLIENT))
            return check.result()
        finally:
            if not check.done():
                leash.cancel()
            await _cancelled(check, gone)

    async def _to(self, peer: Connection, said: str | bytes) -> None:
        """Sends a message on; a peer that takes none must not hold it for ever."""
        upward = peer is self.upstream
        try:
            async with asyncio.timeout(self.settings.message_timeout_s):
                await peer.send(said)
        except ConnectionClosed as error:
            raise _EndedError(by_upstream(error) if upward else by_client(error)) from error
        except TimeoutError as error:
            who = "image server" if upward else "client"
            raise _EndedError(slow(who, "to take a message")) from error
        self._said_at = time.monotonic()


async def _cancelled(*tasks: asyncio.Future[Any]) -> None:
    """Waits until none of the tasks runs any more."""
    for one in tasks:
        one.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
