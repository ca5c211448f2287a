"""`RestCall`: a request on the HTTP port, as interceptors and services look at a call of gRPC."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import grpc
from aiohttp import hdrs, web
from google.protobuf import json_format
from google.protobuf.message import Message
from google.rpc import status_pb2

from loragate_server.rest import problem
from loragate_server.rest.rules import LINES
from loragate_server.rest.strict import invalid
from loragate_server.rpc.errors import DETAILS_KEY, REQUEST_ID_KEY

TIMEOUT = "Request-Timeout"
"""Header with the seconds that the caller waits."""

MOST_TIMEOUT_S = 86_400.0

_DECIMAL = re.compile(r"[0-9]{1,6}(\.[0-9]{1,9})?", re.ASCII)


class RestCall:
    """What `loragate_server.rpc.calls.CallContext` asks for.

    Attributes:
        span_attributes: of the call, beside those of every call.
        http_status: of the answer where HTTP has one of its own for what went wrong.
        stream: the answer where it is several messages, once the first one is there.
    """

    def __init__(self, request: web.Request, route: str) -> None:
        self._request = request
        self.span_attributes = {"http.route": route}
        seconds = _seconds(request.headers.getall(TIMEOUT, []))
        self._deadline_monotonic_s = None if seconds is None else time.monotonic() + seconds
        self._trailing: dict[str, Any] = {}
        self._code = grpc.StatusCode.OK
        self._details = ""
        self.http_status: int | None = None
        self.stream: web.StreamResponse | None = None

    def require_timeout(self) -> None:
        """Refuses a time that is none.

        Raises:
            NoDecisionError: REQUEST_INVALID.
        """
        given = self._request.headers.getall(TIMEOUT, [])
        if given and _seconds(given) is None:
            raise invalid(
                f"{TIMEOUT} is a number of seconds above 0, up to {MOST_TIMEOUT_S:g}, sent once.",
                TIMEOUT,
            )

    def peer(self) -> str:
        """As gRPC writes it."""
        transport = self._request.transport
        address = transport.get_extra_info("peername") if transport else None
        if not isinstance(address, tuple):
            return "unknown:0"
        host, port = address[:2]
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """The headers."""
        return tuple((name.lower(), value) for name, value in self._request.headers.items())

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Nothing: the HTTP port has no TLS."""
        return {}

    def time_remaining(self) -> float | None:
        """None where the caller named no time."""
        end = self._deadline_monotonic_s
        return None if end is None else max(0.0, end - time.monotonic())

    def code(self) -> grpc.StatusCode:
        """OK until `abort`."""
        return self._code

    def set_trailing_metadata(self, metadata: Sequence[tuple[str, Any]]) -> None:
        """Takes the id of the request."""
        self._trailing.update(metadata)

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Sequence[tuple[str, Any]] = ()
    ) -> None:
        """Ends the call.

        Raises:
            grpc.aio.AbortError: always.
        """
        self._code, self._details = code, details
        self._trailing |= {name: value for name, value in trailing_metadata if value}
        raise grpc.aio.AbortError(details)

    async def write(self, message: Message) -> None:
        """Sends one of several answers, each on a line of its own."""
        with _reader_there():
            if self.stream is None:
                self.stream = web.StreamResponse(headers={hdrs.CONTENT_TYPE: LINES, **self.headers})
                await self.stream.prepare(self._request)
            await self.stream.write(_line(as_json(message)))

    @property
    def headers(self) -> dict[str, str]:
        """What every answer of a call has."""
        told = {"X-Content-Type-Options": "nosniff"}
        if request_id := self._trailing.get(REQUEST_ID_KEY):
            told["X-Request-Id"] = request_id
        return told

    async def answer(self, message: Message | None) -> web.StreamResponse:
        """The answer to a call that has ended well."""
        if message is None:
            return await self._end()
        return web.json_response(as_json(message), headers=self.headers)

    async def refusal(self) -> web.StreamResponse:
        """The answer to a call that was aborted; a last line where others were sent before."""
        status = status_pb2.Status(code=self._code.value[0], message=self._details)
        if details := self._trailing.get(DETAILS_KEY):
            status.ParseFromString(details)
        http_status = self.http_status or problem.STATUSES.get(self._code, 500)
        request_id = str(self._trailing.get(REQUEST_ID_KEY, ""))
        document = problem.problem_of(status, http_status, request_id)
        if self.stream is None:
            return problem.answer(document, self.headers)
        with _reader_there():
            await self.stream.write(_line({"problem": document}))
        return await self._end()

    async def _end(self) -> web.StreamResponse:
        if self.stream is None:  # no method ends without an answer
            return problem.answer(problem.plain_problem(500, "The call gave no answer."))
        with _reader_there():
            await self.stream.write_eof()
        return self.stream


def as_json(message: Message) -> dict[str, Any]:
    """A message as it goes out; what has its default value is not there."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


@contextmanager
def _reader_there() -> Iterator[None]:
    """Whoever does not read any more has left, which is no fault of anybody's.

    Raises:
        asyncio.CancelledError: they have.
    """
    try:
        yield
    except ConnectionError:
        raise asyncio.CancelledError from None


def _seconds(given: Sequence[str]) -> float | None:
    """The time that a header names; None where it names none."""
    if len(given) != 1 or not _DECIMAL.fullmatch(given[0]):
        return None
    seconds = float(given[0])
    return seconds if 0 < seconds <= MOST_TIMEOUT_S else None


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"
