"""Bodies of requests: read in pieces, each waited for at most so long, none larger than allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import hdrs, web
from aiohttp.http_exceptions import BadHttpMessage

from loragate_server.config.listen import MESSAGE_BYTES
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.progress import deadline_passed
from loragate_server.rest.problem import HttpRefusalError
from loragate_server.rest.rules import BYTES
from loragate_server.rest.strict import invalid
from loragate_server.web.guard import owed

JSON_BYTES = MESSAGE_BYTES * 4 // 3 + (64 << 10)
"""Of one message in JSON, where bytes are written in base64; as large as one over gRPC."""


class Body:
    """The body of a request, from a peer who may be slow or gone.

    Args:
        request: whose body it is.
        idle_s: how long the peer may leave the next piece owing.
    """

    def __init__(self, request: web.Request, idle_s: float) -> None:
        self._request = request
        self._idle_s = idle_s

    def require_type(self, kind: str) -> None:
        """Refuses what was sent as something else, as pages of other sites have to.

        Raises:
            NoDecisionError: REQUEST_INVALID, answered with status 415.
        """
        request = self._request
        codings = request.headers.getall(hdrs.TRANSFER_ENCODING, ["chunked"])
        plain = request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() == "identity"
        charset = (request.charset or "utf-8").lower()
        named = request.headers.getall(hdrs.CONTENT_TYPE, [])
        if (
            len(named) != 1
            or request.content_type != kind
            or not plain
            or [one.lower() for one in codings] != ["chunked"]
        ):
            raise _unsupported(f"The body is not sent as {kind}, without Content-Encoding.", kind)
        if kind != BYTES and charset != "utf-8":
            raise _unsupported(f"The charset {charset[:40]} is not UTF-8.", kind)

    def require_none(self) -> None:
        """Refuses a body where the method takes none: some would read it, and some would not.

        Raises:
            NoDecisionError: REQUEST_INVALID.
        """
        if self._request.body_exists:
            raise invalid(
                f"{self._request.method} takes no body here; what is asked stands in the address."
            )

    async def pieces(self) -> AsyncIterator[bytes]:
        """All of it, as it comes.

        Raises:
            NoDecisionError: DEADLINE_EXCEEDED after a pause that is too long; REQUEST_INVALID for
                what is no body.
        """
        while True:
            try:
                async with owed(self._request, self._idle_s):
                    piece = await self._request.content.readany()
            except TimeoutError:
                raise deadline_passed(
                    f"Nothing came of the body for {self._idle_s:g} s.",
                    "Send it without long pauses, or raise listen.idle_timeout_s.",
                ) from None
            except (BadHttpMessage, web.RequestPayloadError, ConnectionError) as error:
                said = " ".join(str(error).split())[:200]
                raise invalid(f"The body cannot be read: {said}") from None
            if not piece:
                return
            yield piece

    async def whole(self) -> bytes:
        """All of it at once.

        Raises:
            NoDecisionError: as `pieces`; REQUEST_INVALID with status 413 where it is too large.
        """
        length = self._request.content_length
        if length is not None and length > JSON_BYTES:
            raise _too_large()
        found = bytearray()
        async for piece in self.pieces():
            found += piece
            if len(found) > JSON_BYTES:
                raise _too_large()
        return bytes(found)

    async def lines(self, within_s: float) -> AsyncIterator[bytes]:
        """Line after line; empty ones are left out.

        Raises:
            NoDecisionError: as `whole`, for each line; DEADLINE_EXCEEDED where all of them take
                longer than `within_s`.
        """
        begun = bytearray()
        end_s = asyncio.get_running_loop().time() + within_s
        async for piece in self.pieces():
            if asyncio.get_running_loop().time() > end_s:
                raise deadline_passed(
                    f"The body was not complete after {within_s:g} s.",
                    "Send it faster, or raise listen.upload_timeout_s.",
                )
            *ended, rest = piece.split(b"\n")
            for line in ended:
                begun += line
                if begun.strip():
                    yield bytes(begun)
                begun.clear()
            begun += rest
            if len(begun) > JSON_BYTES:
                raise _too_large()
        if begun.strip():
            yield bytes(begun)


def _too_large() -> NoDecisionError:
    return HttpRefusalError(
        413,
        ErrorReason.REQUEST_INVALID,
        f"A message in JSON has more than {JSON_BYTES} bytes.",
        remedy="Send large files to /v1/audits:upload, or name a path.",
    )


def _unsupported(message: str, kind: str) -> NoDecisionError:
    return HttpRefusalError(
        415,
        ErrorReason.REQUEST_INVALID,
        message,
        remedy=f"Send it with 'Content-Type: {kind}'.",
        metadata={"field": "Content-Type"},
    )
