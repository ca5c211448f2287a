"""A first look without an identity provider: one link, which opens one session, on this machine."""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from aiohttp import web
from yarl import URL

from loragate_server.access.audit import log_refusal, log_sign_in, log_sign_out
from loragate_server.access.identity import role_of
from loragate_server.access.pages import refusal_page, signed_out_page
from loragate_server.access.paths import HOME, LOGIN, LOGOUT, SIGNED_OUT, below_prefix
from loragate_server.access.proxy import peer_address
from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.access.sealing import Clock, CookieJar
from loragate_server.access.sessions import Person, Sessions
from loragate_server.config.console import ConsoleSection

NAME: Final = "demo"
"""Who acts; it stands in the decision log."""

LINK_S: Final = 600.0
_CODE: Final = "code"


class DemoDoor:
    """Lets in whoever opens the link first, within ten minutes and from this machine.

    Whoever can read the server's output could start it as well, so the link is as good as a
    password of its user. Nothing of it is stored: after a restart every session has ended.
    """

    signs_out = True

    def __init__(
        self, section: ConsoleSection, secret: bytes, jar: CookieJar, clock: Clock
    ) -> None:
        self._roles = section.roles
        self._groups = section.roles.groups
        self._sessions = Sessions(secret, section.session_s, self._groups, jar, clock)
        self._clock = clock
        self._code: str | None = secrets.token_urlsafe(32)
        self._until_s = clock() + LINK_S
        self.first_link = str(URL(section.public_url + LOGIN).with_query({_CODE: self._code}))

    async def start(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        """Nothing is held."""

    def routes(self) -> list[web.RouteDef]:
        """In, and away."""
        return [
            web.get(below_prefix(LOGIN), self._login, allow_head=False),
            web.post(below_prefix(LOGOUT), self._logout),
            web.get(below_prefix(SIGNED_OUT), self._signed_out),
        ]

    def identify(self, request: web.Request) -> Person | None:
        """The person of the session; AccessRefused where the peer is not on this machine."""
        _require_from_here(request)
        session = self._sessions.read(request)
        return None if session is None else session.person

    def challenge(self, request: web.Request) -> web.StreamResponse:
        """Only the link leads in."""
        raise AccessRefused(Refusal.DEMO_LINK)

    def forget(self, request: web.Request, response: web.StreamResponse) -> None:
        """Ends the session."""
        self._sessions.end(request, response)

    async def _login(self, request: web.Request) -> web.StreamResponse:
        try:
            _require_from_here(request)
            self._spend(request.query.get(_CODE, ""))
        except AccessRefused as refused:
            log_refusal(request, refused)
            return refusal_page(request, refused, sign_in=False)
        response = web.Response(status=303, headers={"Location": HOME})
        self._sessions.begin(response, NAME, self._groups)
        role = role_of(self._groups, self._roles)
        if role is not None:
            log_sign_in(request, NAME, role)
        return response

    def _spend(self, given: str) -> None:
        """Takes the code, once. A wrong one does not use it up."""
        right = self._code is not None and hmac.compare_digest(
            given.encode("utf-8", "surrogateescape"), self._code.encode()
        )
        if not right or self._clock() > self._until_s:
            raise AccessRefused(Refusal.DEMO_LINK)
        self._code = None

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        response = web.Response(status=303, headers={"Location": SIGNED_OUT})
        ended = self._sessions.end(request, response)
        if ended is not None:
            log_sign_out(request, ended.name)
        return response

    async def _signed_out(self, request: web.Request) -> web.Response:
        return signed_out_page(request)


def _require_from_here(request: web.Request) -> None:
    peer = peer_address(request)
    if peer is None or not peer.is_loopback:
        raise AccessRefused(Refusal.DEMO_LINK, f"from {peer or 'a socket without address'}")
