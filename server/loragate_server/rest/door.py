"""`RestDoor`: the API as JSON on the HTTP port, closed until the server can decide."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import grpc
from aiohttp import web
from aiohttp.typedefs import Middleware
from google.protobuf.message import Message

from loragate.v1 import audit_pb2
from loragate_server.config.listen import MESSAGE_BYTES, GrpcPort
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.progress import deadline_passed
from loragate_server.rest import problem
from loragate_server.rest.body import Body
from loragate_server.rest.call import RestCall
from loragate_server.rest.query import from_query, require_decodable
from loragate_server.rest.rules import BYTES, JSON, LINES, Rule, rules
from loragate_server.rest.sender import check_sender
from loragate_server.rest.strict import invalid, make_message, read_message
from loragate_server.rpc.access import Access
from loragate_server.rpc.calls import Calls
from loragate_server.rpc.errors import abort, to_status
from loragate_server.threads import DaemonPool
from loragate_server.web.guard import while_connected

OPENAPI = Path(__file__).with_name("openapi.json")
OPENAPI_PATH = "/openapi.json"
PREFIXES = ("/v1/audits", "/v1/concepts", OPENAPI_PATH)

SMALL_BYTES = 16 << 10
"""Of JSON that is read on the event loop."""

READERS = 2
"""Threads that read larger ones."""

LATE_S = 0.5
"""The work learns of its deadline first, and says so in its own words."""

_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
_HEADER = audit_pb2.DESCRIPTOR.message_types_by_name["UploadHeader"]
SOURCES = frozenset({"path", "uri", "inline_bytes", "stored_sha256"})
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RestDoor:
    """Answers by the methods of the API, which know no difference.

    Args:
        port: who may call, and the limits.
        public_url: of the console, if there is one.
    """

    def __init__(self, port: GrpcPort, public_url: str = "") -> None:
        self.prefixes: tuple[str, ...] = PREFIXES
        self.middleware: Middleware = _problems
        self._listen = port.listen
        self._anonymous = Access(port, http=True).anonymous
        self._public_url = public_url
        self._openapi = OPENAPI.read_bytes()
        self._calls: Calls | None = None
        self._reading = DaemonPool(READERS, "rest")

    def open(self, calls: Calls) -> None:
        """Lets calls in."""
        self._calls = calls

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds the routes."""
        router.add_route("GET", OPENAPI_PATH, self._describe)
        for rule in rules():
            router.add_route(rule.verb, rule.path, self._handler(rule))

    async def _describe(self, _: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type=JSON)

    def _handler(self, rule: Rule) -> _Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if self._calls is None:
                return _not_ready()
            call = RestCall(request, rule.path)
            running = asyncio.ensure_future(self._run(rule, request, call, self._calls))
            # Whoever leaves is waited for no longer, as over gRPC.
            with while_connected(request, running.cancel):
                try:
                    return await running
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():  # it is the server that ends
                        running.cancel()
                        raise
                    return web.Response(status=problem.GONE)

        return answer

    async def _run(
        self, rule: Rule, request: web.Request, call: RestCall, calls: Calls
    ) -> web.StreamResponse:
        remaining_s = call.time_remaining()
        late_s = None if remaining_s is None else remaining_s + LATE_S
        try:
            async with aclosing(self._messages(rule, request, call)) as messages:
                try:
                    async with asyncio.timeout(late_s):
                        answered = await calls.call(rule.rpc, messages, call)
                except TimeoutError:
                    await abort(call, deadline_passed())
        except grpc.aio.AbortError:
            return await call.refusal()
        return await call.answer(answered)

    async def _messages(
        self, rule: Rule, request: web.Request, call: RestCall
    ) -> AsyncGenerator[Message]:
        """What is asked. Read inside of the call, so that refusals are counted and traced.

        The caller may ask for it, which is known before the first message is.
        """
        try:
            check_sender(request, self._public_url, anonymous=self._anonymous)
            call.require_timeout()
            body = Body(request, self._listen.idle_timeout_s)
            require_decodable(request.raw_path)
            if rule.takes:
                body.require_type(rule.takes)
            else:
                body.require_none()
            async for message in self._read(rule, request, body):
                yield message
        except problem.HttpRefusalError as error:
            call.http_status = error.http_status
            raise

    async def _read(self, rule: Rule, request: web.Request, body: Body) -> AsyncIterator[Message]:
        if rule.takes == BYTES:
            yield _upload_header(request)
            async for piece in body.pieces():
                yield audit_pb2.AuditUploadRequest(chunk=piece)
            return
        question = rule.question
        asked = from_query(rule.method.input_type, request.query.items(), request.match_info)
        if not rule.takes:
            yield make_message(asked, question)
        elif asked:
            raise invalid("What is asked belongs into the body.", next(iter(asked)))
        elif rule.takes == LINES:
            async for line in body.lines(self._listen.upload_timeout_s):
                yield _small(await self._message(line, question))
        else:
            yield _small(await self._message(await body.whole(), question))

    async def _message(self, text: bytes, kind: type[Message]) -> Message:
        """The message; a large one is read where it keeps nobody waiting."""
        if len(text) <= SMALL_BYTES:
            return read_message(text, kind)
        return await asyncio.wrap_future(self._reading.submit(lambda: read_message(text, kind)))


@web.middleware
async def _problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Says by a problem, too, what is wrong with an address or a method."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if not request.path.startswith(PREFIXES) or error.status < 400:
            raise
        detail = f"{request.method} {request.path[:200]}: {error.reason}. See {OPENAPI_PATH}."
        kept = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return problem.answer(problem.plain_problem(error.status, detail), kept)


def _upload_header(request: web.Request) -> audit_pb2.AuditUploadRequest:
    """What is said of the file: by the query, and by headers that say it anyway."""
    asked = from_query(_HEADER, request.query.items(), {})
    if named := SOURCES & set(asked.get("adapter", ())):
        raise invalid(
            "The body is the file; no other source may be named.", f"adapter.{min(named)}"
        )
    if "declared_size_bytes" not in asked:
        if request.content_length is None:
            raise problem.HttpRefusalError(
                411,
                ErrorReason.REQUEST_INVALID,
                "Neither Content-Length nor declared_size_bytes says how large the file is.",
                remedy="Send one of them.",
                metadata={"field": "declared_size_bytes"},
            )
        asked["declared_size_bytes"] = str(request.content_length)
    if digests := request.headers.getall("Content-Digest", []):
        sha256 = _digest(digests)
        if asked.setdefault("sha256", sha256) != sha256:
            raise invalid("Content-Digest and sha256 name different digests.", "sha256")
    return audit_pb2.AuditUploadRequest(header=make_message(asked, audit_pb2.UploadHeader))


def _digest(given: list[str]) -> str:
    """The digest of a header of RFC 9530, in hexadecimal digits."""
    found = _DIGEST.fullmatch(given[0].strip()) if len(given) == 1 else None
    if found is None:
        raise invalid("Content-Digest is not of the form sha-256=:BASE64:.", "Content-Digest")
    return base64.b64decode(found[1]).hex()


def _small(message: Message) -> Message:
    """Refuses what is larger than a message may be over gRPC."""
    if (size := message.ByteSize()) > MESSAGE_BYTES:
        raise problem.HttpRefusalError(
            413,
            ErrorReason.REQUEST_INVALID,
            f"The message has {size} bytes, and may have {MESSAGE_BYTES}.",
            remedy=f"Send large files to {PREFIXES[0]}:upload, or name a path.",
        )
    return message


def _not_ready() -> web.Response:
    error = NoDecisionError(
        ErrorReason.NOT_READY,
        "The server is still loading its models.",
        remedy="Ask again when /readyz says that it is ready.",
        retry_after_s=1.0,
    )
    return problem.answer(problem.problem_of(to_status(error), 503))
