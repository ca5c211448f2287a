"""Routes that change something on a server and load nothing: they pass with their bodies unread."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loragate_server.intercept.refusals import route_unlisted
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import ANY, readings

REST = "**"
"""In a pattern, at its end: one segment or more."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
"""Methods that read. Where one changes something nevertheless, its route is asked or closed."""

UPGRADE = "UPGRADE"
"""In the place of a method: a connection that leaves HTTP behind."""

SOCKET = "socket"
"""The same, where the extractor reads what clients send after it. No setting can say this."""

DENY, WARN, PASS = "deny", "warn", "pass"
MODES = (DENY, WARN, PASS)

_LINE = re.compile(r"([A-Z]+) (/[^\s?#]*)")
_MAX_SHOWN_CHARS = 200
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]{0,23}|v[0-9]{1,2}")


@dataclass(frozen=True)
class PassedRoute:
    """A method and a whole path, with `*` for any one segment and `**` for all that follow."""

    method: str
    pattern: tuple[str, ...]

    def matches(self, segments: Sequence[str]) -> bool:
        """Whether this is the path, whatever the case of its letters."""
        pattern = self.pattern
        if pattern[-1] == REST:
            pattern = pattern[:-1]
            if len(segments) <= len(pattern):
                return False
        elif len(segments) != len(pattern):
            return False
        return all(
            want == ANY or want.casefold() == got.casefold()
            for want, got in zip(pattern, segments, strict=False)
        )


def passed_routes(lines: Iterable[str]) -> tuple[PassedRoute, ...]:
    """Routes written as `POST /queue`.

    Raises:
        ValueError: one is not written so.
    """
    made = []
    for line in lines:
        match = _LINE.fullmatch(line)
        segments = match[2].strip("/").split("/") if match else []
        if not match or REST in segments[:-1] or match[1] in SAFE:
            raise ValueError(f"{line!r} is no route; write it as POST /path, or UPGRADE /path.")
        made.append(PassedRoute(match[1], tuple(segments)))
    return tuple(made)


def passes(
    request: HttpRequest, method: str, routes: Sequence[PassedRoute], prefixes: Sequence[str]
) -> bool:
    """Whether a request reaches a route that passes, however a server reads its path.

    Unlike the routes that are asked about, these have to fit from the first segment on: the end of
    a path says little about what an extension has put behind another prefix.
    """
    open_to = [one for one in routes if one.method == method]
    if not open_to:
        return False
    mounts = [tuple(one.strip("/").split("/")) for one in prefixes if one.strip("/")]
    return all(
        any(
            one.matches(rest)
            for rest in _without_mounts(segments, mounts)
            if rest
            for one in open_to
        )
        for segments in readings(request.path)
    )


def unlisted_message(request: HttpRequest, kind: object, extractor: str) -> Exception:
    """The refusal of a message, in a WebSocket, of a type that an extractor does not know."""
    told = f"the type {shown(kind)}" if isinstance(kind, str) else "no type"
    return route_unlisted(
        f"A message of {told} is none that the extractor {extractor} knows at "
        f"{shown(request.path)}, so nobody can say what it loads.",
        f"Send what the server documents; intercept.extractors.{extractor}.settings."
        "unknown_routes: warn lets such messages pass and counts them.",
    )


def unlisted(request: HttpRequest, extractor: str) -> Exception:
    """The refusal of a route that an extractor does not know."""
    return route_unlisted(
        f"{request.method} {shown(request.path)} is no route that the extractor {extractor} knows, "
        "so nobody can say what it loads.",
        f"If it loads nothing, name it in intercept.extractors.{extractor}.settings.passed_routes; "
        "unknown_routes: warn there lets all such requests pass and counts them.",
    )


def shown(path: str) -> str:
    """A path for the one who sent it."""
    plain = "".join(one if one.isprintable() else "?" for one in path)
    return plain if len(plain) <= _MAX_SHOWN_CHARS else f"{plain[:_MAX_SHOWN_CHARS]}..."


def outline(request: HttpRequest) -> str:
    """Method and path for logs: words stay, whatever may be a name, a number or a secret goes."""
    segments = request.path.split("/")[1:13]
    words = (one if _WORD.fullmatch(one) else ANY for one in segments)
    method = request.method if _WORD.fullmatch(request.method) else ANY
    return f"{method} /{'/'.join(words)}"


def _without_mounts(
    segments: tuple[str, ...], mounts: Sequence[tuple[str, ...]]
) -> Iterable[tuple[str, ...]]:
    yield segments
    for mount in mounts:
        if tuple(one.casefold() for one in segments[: len(mount)]) == tuple(
            one.casefold() for one in mount
        ):
            yield segments[len(mount) :]
