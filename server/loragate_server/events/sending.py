"""`Sender`: one attempt to bring an event to a receiver, within its time."""

from __future__ import annotations

import asyncio
import email.utils
import time
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

import aiohttp
from cloudevents.core.formats.json import JSONFormat

from loragate_server import __version__
from loragate_server.config.events import EventReceiver
from loragate_server.events.resolving import Resolver
from loragate_server.events.signing import (
    SecretUnusableError,
    read_signatures,
    signed_headers,
)
from loragate_server.record.outbox.rows import Event
from loragate_server.threads import DaemonPool

MAX_RETRY_AFTER_S = 3600.0


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        error: why the event was not taken, without its address; empty where it was.
        retry_after_s: for how long the receiver asked to be left alone; 0 where he did not.
    """

    error: str = ""
    retry_after_s: float = 0.0


class Sender:
    """Sends to one receiver by HTTP POST. To be entered on the event loop on which it is used.

    A thread, a pool of connections and a resolver of its own: whatever hangs, hangs for this
    receiver alone.
    """

    def __init__(self, receiver: EventReceiver) -> None:
        self._receiver = receiver

    async def __aenter__(self) -> Self:
        """Opens no connection yet."""
        self._pool = DaemonPool(1, f"events-{self._receiver.name}")
        # No cookies: an attempt depends on nothing but its event.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=Resolver(self._pool), limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"loragate-server/{__version__}"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes all connections."""
        self._pool.shutdown(cancel_futures=True)
        await self._session.close()

    async def send(self, event: Event, now: datetime) -> Outcome:
        """Sends an event once.

        Args:
            event: what.
            now: timezone-aware; the moment that is signed.
        """
        limit_s = self._receiver.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._send(event, now)
        except TimeoutError:
            return Outcome(f"no answer within {limit_s:g} s")
        except (SecretUnusableError, aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(_failure(error))

    async def _send(self, event: Event, now: datetime) -> Outcome:
        file = self._receiver.secret_file.expanduser()
        loop = asyncio.get_running_loop()
        signatures = await loop.run_in_executor(self._pool, read_signatures, file)
        headers = {
            "Content-Type": JSONFormat.CONTENT_TYPE,
            **signed_headers(signatures, event.event_id, now, event.body),
        }
        async with self._session.post(
            self._receiver.url,
            data=event.body.encode("ascii"),
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(),  # of the whole, above
        ) as answer:
            # Its body is nobody's concern, and may have no end.
            return _outcome(answer.status, answer.headers.get("Retry-After", ""))


def _outcome(status: int, retry_after: str) -> Outcome:
    if 200 <= status < 300:
        return Outcome()
    if 300 <= status < 400:
        return Outcome(f"answered {status}; redirects are not followed, name the final address")
    return Outcome(f"answered {status}", _seconds(retry_after))


def _seconds(retry_after: str) -> float:
    """Seconds, or a date of HTTP; 0 for anything else."""
    if retry_after.isascii() and retry_after.isdigit():
        return min(float(retry_after[:9]), MAX_RETRY_AFTER_S)
    try:
        until = email.utils.parsedate_to_datetime(retry_after).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(0.0, until - time.time()), MAX_RETRY_AFTER_S)


def _failure(error: Exception) -> str:
    """Why there was no answer, without the address: that may hold a token."""
    if isinstance(error, SecretUnusableError):
        return str(error)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted: {error.certificate_error}"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be reached: {error.strerror}"
    return f"the connection failed: {type(error).__name__}"
