"""ASGI middleware for image servers: a request that names a LoRA gets in when it is allowed.

    from loragate.integrations.asgi import LoragateMiddleware

    app.add_middleware(LoragateMiddleware, routes={"/generate": None})

Pure ASGI: works with FastAPI, Starlette and every other framework, and needs none of them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from loragate.aio import AsyncAuditClient
from loragate.errors import AuditError, InvalidAdapter, InvalidRequest
from loragate.integrations._asgi import bodies
from loragate.integrations._asgi.names import Names
from loragate.integrations._asgi.paths import at_paths
from loragate.integrations._asgi.search import search
from loragate.integrations._asgi.values import Named
from loragate.integrations._together import OnReview, lets_review_in
from loragate.reference import AdapterReference, AuditOptions, as_reference, checked_digest
from loragate.results import AuditResult

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

DEFAULT_MAX_BODY_BYTES = 16 * 1024 * 1024
_MOST_DIGITS = 18
"""Of a length; Python refuses to read thousands."""
STATE_KEY = "loragate"
"""Where the scope of a request that got in holds its `AuditResult`; None without a LoRA."""


@dataclass(frozen=True)
class GuardedRequest:
    """A request as extractors and rewriters see it.

    Attributes:
        path: the path that was asked for.
        query: what stands behind the question mark.
        headers: lower-case name to value.
        body: the bytes.
        json: the body read strictly; asked for only when it is JSON.
    """

    path: str
    query: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def json(self) -> Any:
        """The body as JSON; an empty body is None.

        Raises:
            InvalidBodyError: it is not, or could be read in two ways.
        """
        return bodies.parse(self.body) if self.body else None

    @property
    def fields(self) -> Any:
        """The body as JSON, or the fields of a form, also of a multipart one, as an object.

        Raises:
            InvalidBodyError: it is neither, or could be read in two ways.
        """
        return bodies.read(self.body, self.headers)


Extractor = Callable[[GuardedRequest], Sequence[AdapterReference]]
"""The adapters that a request will have loaded; raises `InvalidBodyError` for a bad request."""

Rewriter = Callable[[GuardedRequest, AuditResult], bytes | Awaitable[bytes]]
"""The body to pass on, for example with references to the audited copies."""


def adapter_fields(*, also: Collection[str] = (), but_not: Collection[str] = ()) -> Extractor:
    """An extractor for all fields that are named like adapters; what a route has by default.

    It looks into the query and the body, JSON or form, at any depth, also into JSON that is sent
    as a text. A name speaks of an adapter where it holds "lora" or one of its kin in any letters,
    other than by chance, or is one of adapters or further weights.

    Args:
        also: names of further fields that hold adapters.
        but_not: names of fields that hold none, whatever they sound like.

    Raises:
        ValueError: a name is in both.
    """
    names = Names.of(also, but_not)

    def extract(request: GuardedRequest) -> list[AdapterReference]:
        found = [
            *search(bodies.read_query(request.query), names),
            *search(request.fields, names),
        ]
        return [_reference(one) for one in dict.fromkeys(found)]

    return extract


json_fields: Extractor = adapter_fields()
"""The default extractor, with nothing added or left out."""


def json_paths(*paths: str) -> Extractor:
    """An extractor for the fields at dotted paths, for example "input.loras.*.url"."""

    def extract(request: GuardedRequest) -> list[AdapterReference]:
        return [_reference(one) for one in at_paths(request.json, paths)]

    return extract


def _reference(named: Named) -> AdapterReference:
    plain = as_reference(named.place if named.data is None else named.data)
    return AdapterReference(
        path=plain.path,
        uri=plain.uri,
        data=plain.data,
        strength=named.scale,
        text_encoder_strength=named.text_scale,
    )


class LoragateMiddleware:
    """Lets requests pass that name no LoRA, or only LoRAs that the service allows.

    Args:
        app: the application behind.
        routes: path to extractor; None for `adapter_fields()`. Other paths pass, unread.
        client: asks the service, which reads the paths and URIs itself, inside its roots; None for
            one at LORAGATE_TARGET.
        base_model: name under which the service knows the model; empty for its default.
        base_digest: digest that the model must have there; None to accept any.
        on_review: what to do with a verdict of REVIEW.
        loader: what loads the adapters behind, as the service names loaders, for example
            "diffusers"; empty where that is not known.
        max_body_bytes: longest body of a guarded request; longer ones get 413.
        rewrite: makes the body that is passed on from the request and its verdict.
    """

    def __init__(
        self,
        app: App,
        *,
        routes: Mapping[str, Extractor | None],
        client: AsyncAuditClient | None = None,
        base_model: str = "",
        base_digest: str | None = None,
        on_review: OnReview = "block",
        loader: str = "",
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        rewrite: Rewriter | None = None,
    ) -> None:
        self._app = app
        self._routes = {_plain(path): extract or json_fields for path, extract in routes.items()}
        self._client = client
        self._options: AuditOptions = {
            "base_model": base_model,
            "expected_base_digest": checked_digest(base_digest),
            "loader": loader,
        }
        self._review = lets_review_in(on_review)
        self._max_body_bytes = max_body_bytes
        self._rewrite = rewrite

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        extract = self._extractor(scope)
        if extract is None:
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await _close_websocket(receive, send)
            return
        try:
            request, result = await self._decide(scope, receive, extract)
            body = request.body
            if self._rewrite is not None and result is not None:
                made = self._rewrite(request, result)
                body = await made if inspect.isawaitable(made) else made
        except _AnswerError as answer:
            await _answer(send, answer.status, answer.fields)
            return
        scope[STATE_KEY] = result
        if body != request.body:
            scope["headers"] = [
                (name, str(len(body)).encode() if name == b"content-length" else value)
                for name, value in scope["headers"]
            ]
        await self._app(scope, _replay(body, receive), send)

    def _extractor(self, scope: Scope) -> Extractor | None:
        """The extractor of the route; None where it is not guarded."""
        path = scope.get("path")
        if path is None:
            return None
        inside = path.removeprefix(scope.get("root_path", ""))
        return self._routes.get(_plain(path)) or self._routes.get(_plain(inside))

    async def _decide(
        self, scope: Scope, receive: Receive, extract: Extractor
    ) -> tuple[GuardedRequest, AuditResult | None]:
        """The request and the decision to let it in; None where it names no adapter.

        Raises:
            _AnswerError: it is not let in.
        """
        headers = _headers(scope)
        if headers.get("content-encoding", "identity") != "identity":
            raise _AnswerError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Send the body without a content-encoding."
            )
        body = await self._read(headers, receive)
        query = scope.get("query_string", b"").decode("latin-1")
        request = GuardedRequest(scope["path"], query, headers, body)
        try:
            references = extract(request)
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
            raise _AnswerError(HTTPStatus.BAD_REQUEST, str(error)) from error
        return request, await self._audit(references) if references else None

    async def _audit(self, references: Sequence[AdapterReference]) -> AuditResult:
        if self._client is None:
            self._client = AsyncAuditClient(service="asgi")  # on the loop that will use it
        try:
            result = await self._client.audit(list(references), **self._options)
        except (InvalidAdapter, InvalidRequest) as error:
            raise _AnswerError(
                HTTPStatus.FORBIDDEN, error.message, reason=error.reason, remedy=error.remedy
            ) from error
        except (AuditError, ValueError) as error:
            raise _AnswerError(
                HTTPStatus.SERVICE_UNAVAILABLE, f"There is no decision: {error}"
            ) from error
        if result.lets_in(review=self._review):
            return result
        if not result.decided:
            raise _AnswerError(HTTPStatus.SERVICE_UNAVAILABLE, result.reasons[0].message)
        top = result.top_finding
        raise _AnswerError(
            HTTPStatus.FORBIDDEN,
            " ".join(reason.message for reason in result.reasons) or "The adapter is not allowed.",
            verdict=result.verdict,
            concept=top.concept_id if top else None,
            decision_id=result.decision_id,
        )

    async def _read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """The whole body.

        Raises:
            _AnswerError: it is too long, or ends early.
        """
        declared = headers.get("content-length", "0")
        # where it is no number, the body itself says how long it is
        if (declared.isascii() and declared.isdigit()) and (
            len(declared) > _MOST_DIGITS or int(declared) > self._max_body_bytes
        ):
            raise self._too_long()
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _AnswerError(HTTPStatus.BAD_REQUEST, "The request ended before its body.")
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise self._too_long()
            if not message.get("more_body", False):
                return bytes(body)

    def _too_long(self) -> _AnswerError:
        return _AnswerError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"A guarded request has at most {self._max_body_bytes} bytes.",
        )


class _AnswerError(Exception):
    """The request is answered here."""

    def __init__(self, status: HTTPStatus, message: str, **fields: Any) -> None:
        super().__init__(message)
        self.status = status
        self.fields = {"error": "loragate", "message": message, **fields}


def _headers(scope: Scope) -> dict[str, str]:
    """The headers by their names in small letters, of those with one name the last.

    Raises:
        _AnswerError: what says how the body is read comes twice; applications take the first.
    """
    named = [(name.decode("latin-1").lower(), value) for name, value in scope["headers"]]
    for one in ("content-type", "content-encoding", "content-length"):
        if sum(name == one for name, _ in named) > 1:
            raise _AnswerError(
                HTTPStatus.BAD_REQUEST, f"The header {one} comes twice. Send it once."
            )
    return {name: value.decode("latin-1") for name, value in named}


def _plain(path: str) -> str:
    """A path as routers compare them: without doubled or trailing slashes."""
    return "/" + "/".join(part for part in path.split("/") if part)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Gives the body to the application as one message; after that, whatever comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _answer(send: Send, status: HTTPStatus, fields: Mapping[str, Any]) -> None:
    body = json.dumps(fields, ensure_ascii=False).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": int(status), "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _close_websocket(receive: Receive, send: Send) -> None:
    """Refuses a socket at a guarded path: what it will carry cannot be audited beforehand."""
    await receive()
    await send({"type": "websocket.close", "code": 1008})
