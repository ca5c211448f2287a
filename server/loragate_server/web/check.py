"""`/v1/check` on the HTTP port: the same answers for proxies that do not speak gRPC."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

from loragate_server.config.intercept import InterceptSection
from loragate_server.intercept.request import HttpRequest
from loragate_server.progress import Leash
from loragate_server.web.guard import owed, too_slow

if TYPE_CHECKING:  # loading these for their types alone would load torch
    from loragate_server.checkpoint.outcome import CheckOutcome

PATH = "/v1/check"
METHOD, URI, LENGTH = "X-Original-Method", "X-Original-URI", "X-Original-Content-Length"
UPGRADE = "X-Original-Upgrade"
"""A proxy cannot hand on Upgrade itself, which would be about its own connection."""

RESULT, DECISION, VERDICT = "x-loragate-result", "x-loragate-decision-id", "x-loragate-verdict"

Authorize = Callable[[str], str]
"""Gives the name of who sends this Authorization header; raises PermissionError with a sentence."""

Check = Callable[[HttpRequest, str, str, Leash], Awaitable["CheckOutcome"]]
"""Answers a request, by the extractor of this name, for a proxy of that name."""

_OWN = frozenset({"authorization", *(name.lower() for name in (METHOD, URI, LENGTH, UPGRADE))})
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class CheckDoor:
    """Closed until `open`; every request is denied until then."""

    def __init__(self, settings: InterceptSection, authorize: Authorize) -> None:
        self.settings = settings
        self._authorize = authorize
        self._check: Check | None = None

    def open(self, check: Check) -> None:
        """Lets requests in."""
        self._check = check

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds the routes. nginx asks by GET, whatever the original method."""
        for path in (PATH, f"{PATH}/{{extractor}}"):
            router.add_route("*", path, self.answer)

    async def answer(self, asked: web.Request) -> web.Response:
        """200 where the request may pass, and the denial where it may not."""
        try:
            identity = self._authorize(asked.headers.get("Authorization", ""))
        except PermissionError as error:
            return _plain(401, "unauthenticated", str(error))
        if self._check is None:
            return _plain(503, "not_ready", "The server is still loading its base models.")
        try:
            async with owed(asked, self.settings.http_timeout_s):
                body = await asked.read()
        except TimeoutError:
            return too_slow()
        except web.HTTPRequestEntityTooLarge:
            limit = self.settings.max_body_bytes
            return _plain(413, "body_incomplete", f"The body has more than {limit} bytes.")
        request = _shown(asked, body)
        if request is None:
            return _plain(400, "original_missing", f"Send {METHOD} and {URI}, once each.")
        extractor = asked.match_info.get("extractor") or asked.query.get("extractor", "")
        leash = Leash(deadline_monotonic_s=time.monotonic() + self.settings.http_timeout_s)
        return _response(await self._check(request, extractor, identity, leash))


def _shown(asked: web.Request, body: bytes) -> HttpRequest | None:
    """The original request; None where the proxy does not say what it was."""
    methods, targets = asked.headers.getall(METHOD, []), asked.headers.getall(URI, [])
    lengths = asked.headers.getall(LENGTH, [])
    # Said twice, one of the two may be the client's own.
    if len(methods) != 1 or len(targets) != 1 or len(lengths) > 1:
        return None
    if not targets[0].startswith("/"):
        return None
    headers: dict[str, str] = {}
    for name, value in asked.headers.items():
        lower = name.lower()
        if lower not in _OWN:
            headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    if upgrade := ", ".join(one for one in asked.headers.getall(UPGRADE, []) if one):
        headers["upgrade"] = upgrade
    method = methods[0].upper()
    path, _, query = targets[0].partition("?")
    # A proxy that asks without the body says here how long it is.
    declared = (lengths[0] if lengths else "") or headers.get("content-length")
    if declared is None:
        complete = bool(body) or method not in _WITH_BODY
    else:
        complete = declared.strip() == str(len(body))
    return HttpRequest(method, path, query, headers, body, body_complete=complete)


def _response(outcome: CheckOutcome) -> web.Response:
    told = {RESULT: outcome.result.value}
    if outcome.decision_id:
        told |= {DECISION: outcome.decision_id, VERDICT: outcome.verdict}
    denial = outcome.denial
    if denial is None:
        return web.Response(status=200, headers=told)
    named = {name.lower(): value for name, value in denial.headers if value}
    headers = {"content-type": denial.content_type, **named, **told}
    return web.Response(status=denial.status, body=denial.body, headers=headers)


def _plain(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
