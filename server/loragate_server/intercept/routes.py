"""Which route of a server a request reaches, under every way in which servers read a path."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from posixpath import normpath
from urllib.parse import parse_qsl, unquote

from loragate_server.intercept.refusals import ambiguous_adapter, route_unknown
from loragate_server.intercept.request import HttpRequest

ANY = "*"
"""In a pattern: any one segment."""

_LOADS_NOTHING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "DELETE"})
_METHOD_IN_QUERY = re.compile(r"(^|[&;])_method=")
_OVERRIDES = ("x-http-method-override", "x-http-method", "x-method-override")
_MAX_PATH_CHARS = 4096
_MAX_READINGS = 200
_PLAIN = re.compile(r"(?:/[A-Za-z0-9_~@-][A-Za-z0-9._~@-]*)*/?")
_ODD = re.compile(r"[%\\;?#\x00-\x1f\x7f]")
_REMEDY = "Send the path as the server's documentation writes it."


@dataclass(frozen=True)
class Route:
    """A route through which an adapter can come in.

    Attributes:
        name: for the extractor that has it.
        pattern: the last segments of the path. What stands before them is not looked at, because
            servers are mounted under prefixes.
        any_method: also for GET and the like, which on most routes change nothing.
    """

    name: str
    pattern: tuple[str, ...]
    any_method: bool = False


@dataclass(frozen=True)
class Hit:
    """The route that a request reaches, and the segments that stand for `ANY`."""

    route: Route
    captured: tuple[str, ...]


def route(name: str, path: str, *, any_method: bool = False) -> Route:
    """A route written as a path, with `*` for any one segment."""
    return Route(name, tuple(path.strip("/").split("/")), any_method)


def find_route(request: HttpRequest, routes: Sequence[Route]) -> Hit | None:
    """The guarded route that a request reaches; None when it reaches no such route.

    Raises:
        RefusedRequestError: ROUTE_UNKNOWN when servers could disagree about that.
    """
    check_line(request)
    open_to = [
        one for one in routes if one.any_method or request.method.upper() not in _LOADS_NOTHING
    ]
    plain = _plain_segments(request.path)
    hit = None if plain is None else _match(plain, open_to, exact=True)
    for reading in readings(request.path):
        other = _match(reading, open_to, exact=False)
        if other is not None and (hit is None or other.route != hit.route):
            raise route_unknown("The path can be read in several ways.", _REMEDY)
    return hit


def check_line(request: HttpRequest) -> None:
    """Refuses a request whose method or path is not what its first line says.

    Raises:
        RefusedRequestError: ROUTE_UNKNOWN.
    """
    if any(request.header(name) for name in _OVERRIDES):
        raise route_unknown("A header overrides the method.", "Send the method that is meant.")
    if request.query and _METHOD_IN_QUERY.search(unquote(request.query, errors="replace")):
        raise route_unknown("The query overrides the method.", "Send the method that is meant.")
    if not request.path.startswith("/") or len(request.path) > _MAX_PATH_CHARS:
        raise route_unknown("The path is not absolute, or too long.", _REMEDY)


def query_of(request: HttpRequest) -> list[tuple[str, str]]:
    """The parameters of the query.

    Raises:
        RefusedRequestError: ROUTE_UNKNOWN when it cannot be read.
    """
    try:
        return parse_qsl(
            request.query, keep_blank_values=True, errors="strict", max_num_fields=1000
        )
    except ValueError as error:
        raise route_unknown("The query cannot be read.", "Send a query in UTF-8.") from error


def query_value(request: HttpRequest, name: str) -> str | None:
    """One parameter of the query, None where it is missing.

    Raises:
        RefusedRequestError: ROUTE_UNKNOWN, or ADAPTER_AMBIGUOUS when it comes twice.
    """
    values = [value for key, value in query_of(request) if key == name]
    if len(values) > 1:
        raise ambiguous_adapter(f"query {name}", "comes more than once.", "Send it once.")
    return values[0] if values else None


def _plain_segments(path: str) -> tuple[str, ...] | None:
    """The segments as every server reads them; None when servers may differ."""
    if not _PLAIN.fullmatch(path):
        decoded = unquote(path, errors="replace")
        if decoded.count("/") != path.count("/") or _ODD.search(decoded):
            return None
        path = decoded
    segments = path.removesuffix("/").split("/")[1:]
    return None if {"", ".", ".."} & set(segments) else tuple(segments)


def readings(path: str) -> set[tuple[str, ...]]:
    """The segments under every chain of the liberties that servers and proxies take.

    Raises:
        RefusedRequestError: ROUTE_UNKNOWN when there are too many.
    """
    liberties = _TIDY if _PLAIN.fullmatch(path) else _LIBERTIES
    known, waiting = {path}, [path]
    while waiting:
        now = waiting.pop()
        for liberty in liberties:
            new = liberty(now)
            if new not in known:
                known.add(new)
                waiting.append(new)
        if len(known) > _MAX_READINGS:
            raise route_unknown("The path can be read in too many ways.", _REMEDY)
    return {tuple(one.strip("/").split("/")) for one in known}


_TIDY: tuple[Callable[[str], str], ...] = (str.casefold,)
_LIBERTIES: tuple[Callable[[str], str], ...] = (
    str.casefold,
    lambda path: unquote(path, errors="replace"),
    lambda path: path.replace("\\", "/"),
    lambda path: re.sub(r";[^/]*", "", path),
    lambda path: re.split(r"[;?#\x00]", path, maxsplit=1)[0],
    lambda path: re.sub(r"/{2,}", "/", path),
    lambda path: re.sub(r"[\x00-\x20\x7f]", "", path),
    lambda path: normpath(path) if path else path,
)


def _match(segments: tuple[str, ...], routes: Sequence[Route], *, exact: bool) -> Hit | None:
    for one in routes:
        end = segments[-len(one.pattern) :]
        if len(end) != len(one.pattern):
            continue
        pairs = list(zip(one.pattern, end, strict=True))
        if all(
            want in (ANY, got) or (not exact and want.casefold() == got.casefold())
            for want, got in pairs
        ):
            return Hit(one, tuple(got for want, got in pairs if want == ANY))
    return None
