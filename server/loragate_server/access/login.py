"""Signing in with an OpenID provider: out to it with a riddle, back with a code, and out again."""

from __future__ import annotations

import hmac
import logging
import secrets
from dataclasses import asdict, dataclass
from typing import Any, Final

from aiohttp import web
from authlib.common.urls import add_params_to_uri
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from loragate_server.access import pages
from loragate_server.access.audit import log_refusal, log_sign_in, log_sign_out
from loragate_server.access.claims import claim, person_groups, person_name
from loragate_server.access.identity import role_of
from loragate_server.access.paths import (
    CALLBACK,
    HOME,
    LOGIN,
    LOGOUT,
    SIGNED_OUT,
    below_prefix,
    local_target,
)
from loragate_server.access.provider import Description, Provider, Tokens, plain_code
from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.access.sealing import Clock, CookieJar, Seal, read_secret
from loragate_server.access.sessions import Person, Sessions, Spent
from loragate_server.access.tokens import believed_claims
from loragate_server.config.console import ConsoleSection, OidcSection

ATTEMPT_S: Final = 600.0
_COOKIE: Final = "loragate_login_"
_MAX_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Attempt:
    """A sign-in that has begun, as it waits in a sealed cookie of the browser.

    Attributes:
        state: comes back from the provider, and names the cookie.
        nonce: comes back inside the ID token.
        verifier: whoever redeems the code has to know it.
        target: page to return to.
    """

    state: str
    nonce: str
    verifier: str
    target: str

    @classmethod
    def begin(cls, target: str) -> Attempt:
        """A new one, with riddles that nobody can guess."""
        return cls(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            target=local_target(target),
        )

    @property
    def cookie(self) -> str:
        """Several tabs may sign in at once, so each attempt has a cookie of its own."""
        return _cookie(self.state)


def _cookie(state: str) -> str:
    return f"{_COOKIE}{state[:8]}"


class OidcDoor:
    """Lets in whom the provider vouches for."""

    signs_out = True

    def __init__(
        self, section: ConsoleSection, secret: bytes, jar: CookieJar, clock: Clock
    ) -> None:
        if section.oidc is None:
            raise ValueError("console.auth is oidc, and the section console.oidc is missing")
        self._oidc: OidcSection = section.oidc
        self._roles = section.roles
        self._public_url = section.public_url
        self._jar, self._clock = jar, clock
        self._provider = Provider(
            self._oidc,
            _client_secret(self._oidc),
            redirect_uri=section.public_url + CALLBACK,
            clock=clock,
        )
        self._sessions = Sessions(secret, section.session_s, section.roles.groups, jar, clock)
        self._attempts = Seal(secret, "login 1", clock)
        self._spent = Spent(clock)

    async def start(self) -> None:
        """Makes the HTTP client."""
        await self._provider.start()

    async def close(self) -> None:
        """Ends its connections."""
        await self._provider.close()

    def routes(self) -> list[web.RouteDef]:
        """Out, back, and away."""
        return [
            web.get(below_prefix(LOGIN), self._login),
            web.get(below_prefix(CALLBACK), self._callback),
            web.post(below_prefix(LOGOUT), self._logout),
            web.get(below_prefix(SIGNED_OUT), self._signed_out),
        ]

    def identify(self, request: web.Request) -> Person | None:
        """The person of the session."""
        session = self._sessions.read(request)
        return None if session is None else session.person

    def challenge(self, request: web.Request) -> web.StreamResponse:
        """Sends people who open a page to the sign-in, and refuses all else."""
        opens_page = request.headers.get("Sec-Fetch-Dest", "document") == "document"
        if request.method != "GET" or not opens_page:
            raise AccessRefused(Refusal.SIGN_IN)
        target = local_target(request.path_qs)
        return web.Response(
            status=303, headers={"Location": add_params_to_uri(LOGIN, [("next", target)])}
        )

    def forget(self, request: web.Request, response: web.StreamResponse) -> None:
        """Ends the session."""
        self._sessions.end(request, response)

    async def _login(self, request: web.Request) -> web.StreamResponse:
        description = await self._provider.description()
        attempt = Attempt.begin(request.query.get("next", HOME))
        address = prepare_grant_uri(
            description.authorization_endpoint,
            client_id=self._oidc.client_id,
            response_type="code",
            redirect_uri=self._provider.redirect_uri,
            scope=" ".join(self._oidc.scopes),
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        response = web.Response(status=303, headers={"Location": address})
        self._clear_old_attempts(request, response)
        self._jar.set(
            response, attempt.cookie, self._attempts.close(asdict(attempt)), life_s=ATTEMPT_S
        )
        return response

    async def _callback(self, request: web.Request) -> web.StreamResponse:
        state = _only(request, "state")
        try:
            response = await self._finish(request, state)
        except AccessRefused as refused:
            log_refusal(request, refused)
            response = pages.refusal_page(request, refused, sign_in=True)
        if self._jar.name(_cookie(state)) in request.cookies:  # a state may be no name of a cookie
            self._jar.clear(response, _cookie(state))
        return response

    async def _finish(self, request: web.Request, state: str) -> web.Response:
        attempt = self._attempt(request, state)
        _check_provider_answer(request, await self._provider.description())
        tokens = await self._provider.redeem(_only(request, "code"), attempt.verifier)
        claims = await believed_claims(tokens, self._provider, attempt.nonce, self._clock)
        claims = await self._completed(claims, tokens)
        name = person_name(claims, self._oidc.user_claim)
        groups = person_groups(claims, self._oidc.groups_claim)
        role = role_of(groups, self._roles)
        if role is None:
            raise AccessRefused(Refusal.NO_ROLE, name)
        response = web.Response(status=303, headers={"Location": attempt.target})
        self._sessions.end(request, response)
        session = self._sessions.begin(response, name, groups)
        log_sign_in(request, session.name, role)
        return response

    def _attempt(self, request: web.Request, state: str) -> Attempt:
        """The attempt that the provider answers, which is used up by that."""
        sealed = request.cookies.get(self._jar.name(_cookie(state)), "")
        record = self._attempts.open(sealed, ATTEMPT_S) if sealed and state else None
        if record is None or not hmac.compare_digest(record["state"].encode(), state.encode()):
            raise AccessRefused(Refusal.LOGIN_UNKNOWN)
        if not self._spent.add(state, self._clock() + ATTEMPT_S + 1):
            raise AccessRefused(Refusal.LOGIN_UNKNOWN, "used before")
        return Attempt(**record)

    async def _completed(self, claims: dict[str, Any], tokens: Tokens) -> dict[str, Any]:
        """The claims, with those of the userinfo endpoint where name or groups are missing."""
        wanted = (self._oidc.user_claim, self._oidc.groups_claim)
        if all(claim(claims, path) is not None for path in wanted) or not tokens.access_token:
            return claims
        more = await self._provider.userinfo(tokens.access_token)
        if more and more.get("sub") != claims["sub"]:
            raise AccessRefused(Refusal.TOKEN_REFUSED, "userinfo is about somebody else")
        return {**more, **claims}

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        onward = await self._end_session_address()
        response = (
            pages.signing_out_page(request, onward)
            if onward
            else web.Response(status=303, headers={"Location": SIGNED_OUT})
        )
        session = self._sessions.end(request, response)
        if session is not None:
            log_sign_out(request, session.name)
        return response

    async def _end_session_address(self) -> str:
        """Where the provider's own session ends; empty if it has no such place, or is down."""
        try:
            address = (await self._provider.description()).end_session_endpoint
        except AccessRefused as refused:
            logging.getLogger(__name__).warning("signed out here only: %s", refused)
            return ""
        if address is None:
            return ""
        back = self._public_url + SIGNED_OUT
        asked = [("client_id", self._oidc.client_id), ("post_logout_redirect_uri", back)]
        return str(add_params_to_uri(address, asked))

    async def _signed_out(self, request: web.Request) -> web.StreamResponse:
        return pages.signed_out_page(request)

    def _clear_old_attempts(self, request: web.Request, response: web.StreamResponse) -> None:
        """Forgets attempts when there are many, before the browser's headers grow too long."""
        prefix = self._jar.name(_COOKIE)
        old = [name for name in request.cookies if name.startswith(prefix)]
        if len(old) >= _MAX_ATTEMPTS:
            plain = self._jar.name("")
            for name in old:
                self._jar.clear(response, name.removeprefix(plain))


def _check_provider_answer(request: web.Request, description: Description) -> None:
    """Looks for a refusal, and whether another provider's answer was slipped in."""
    issuer = _only(request, "iss")
    demanded = description.authorization_response_iss_parameter_supported
    if (issuer or demanded) and issuer != description.issuer:
        raise AccessRefused(Refusal.TOKEN_REFUSED, "the answer is another provider's")
    error = _only(request, "error")
    if error:
        raise AccessRefused(Refusal.PROVIDER_REFUSED, plain_code(error))
    if not _only(request, "code"):
        raise AccessRefused(Refusal.LOGIN_INCOMPLETE, "no code")


def _only(request: web.Request, name: str) -> str:
    """The parameter, which may come once; empty if it does not come at all."""
    values = request.query.getall(name, [])
    if len(values) > 1:
        raise AccessRefused(Refusal.LOGIN_INCOMPLETE, f"{name} came {len(values)} times")
    return values[0] if values else ""


def _client_secret(section: OidcSection) -> str:
    setting = "console.oidc.client_secret_file"
    try:
        return read_secret(section.client_secret_file, setting).decode("ascii")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{setting} {section.client_secret_file} holds bytes that are no ASCII text"
        ) from error
