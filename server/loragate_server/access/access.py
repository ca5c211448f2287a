"""Everything that stands between a request and a page of the console."""

from __future__ import annotations

import secrets
import time
from typing import Protocol

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from loragate_server.access import pages
from loragate_server.access.audit import log_missing_role, log_refusal
from loragate_server.access.demo import DemoDoor
from loragate_server.access.forms import (
    FORM_TOKENS,
    SAFE_METHODS,
    BoundTokens,
    FormTokens,
    check_form,
    check_sender,
)
from loragate_server.access.headers import check_host, security_headers
from loragate_server.access.identity import (
    USER,
    Permission,
    Role,
    User,
    permissions_of,
    role_of,
)
from loragate_server.access.paths import (
    CALLBACK,
    HOME,
    LOGIN,
    PREFIX,
    SIGNED_OUT,
    STATIC,
    STYLE,
    UPLOADS,
    below_prefix,
)
from loragate_server.access.proxy import ProxyDoor
from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.access.sealing import Clock, CookieJar, read_session_secret
from loragate_server.access.sessions import Person
from loragate_server.access.uploads import UPLOAD, Uploads
from loragate_server.config.console import ConsoleSection

_PUBLIC = frozenset({LOGIN, CALLBACK, SIGNED_OUT, STYLE, STATIC})


class Door(Protocol):
    """A way of knowing people.

    Attributes:
        signs_out: whether it can also make somebody unknown again.
    """

    signs_out: bool

    async def start(self) -> None:
        """Makes what needs the event loop; asks nobody, so it cannot fail."""

    async def close(self) -> None:
        """Gives it back."""

    def routes(self) -> list[web.RouteDef]:
        """Its own addresses."""

    def identify(self, request: web.Request) -> Person | None:
        """Who sends the request; None if nobody says. Raises AccessRefused."""

    def challenge(self, request: web.Request) -> web.StreamResponse:
        """The answer to nobody. May raise AccessRefused."""

    def forget(self, request: web.Request, response: web.StreamResponse) -> None:
        """Makes the next request come from nobody, where that is ours to do."""


class Access:
    """Lets people in, gives pages their `User`, and looks at every form before a page does."""

    def __init__(
        self, section: ConsoleSection, door: Door, tokens: FormTokens, first_link: str = ""
    ) -> None:
        """Args: `first_link` opens the console once; "" where people sign in."""
        self.first_link = first_link
        self._section, self._door, self._tokens = section, door, tokens
        self._uploads = Uploads(tokens)
        self._headers = security_headers(section.public_url)

    async def start(self) -> None:
        """Gets ready. A provider that is down is noticed when somebody signs in."""
        await self._door.start()

    async def close(self) -> None:
        """Ends connections. Safe to call twice."""
        await self._door.close()

    def install(self, application: web.Application) -> None:
        """Adds routes, headers and checks to the application that is mounted under `/console`.

        Middlewares that were there before stand outside of the checks, later ones inside.
        """
        application.middlewares.append(self._middleware())
        application.on_response_prepare.append(self._add_headers)
        application.router.add_routes(self._door.routes())
        application.router.add_get(below_prefix(STYLE), _style)
        application.router.add_get(below_prefix(PREFIX), _home)

    def _middleware(self) -> Middleware:
        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                answer = await self._admit(request)
                return await handler(request) if answer is None else answer
            except AccessRefused as refused:
                return self._refuse(request, refused)

        return guard

    async def _admit(self, request: web.Request) -> web.StreamResponse | None:
        """Leaves `USER` in the request and returns None, or returns another answer."""
        check_host(request, self._section.public_url)
        safe = request.method in SAFE_METHODS
        if not safe:
            check_sender(request, self._section.public_url)
        elif _is_public(request):
            return None
        person = self._door.identify(request)
        if person is None:
            return self._door.challenge(request)
        role = role_of(person.groups, self._section.roles)
        if role is None:
            raise AccessRefused(Refusal.NO_ROLE, person.name)
        user = User(person.name, role, permissions_of(person.groups, self._section.roles))
        request[USER] = user
        request[FORM_TOKENS] = BoundTokens(
            self._tokens, person.binding, signs_out=self._door.signs_out
        )
        if _takes_files(request):
            require_permission(request, Permission.EDIT_CONCEPTS)
            request[UPLOAD] = await self._uploads.read(request, person.binding)
        elif not safe:
            await check_form(request, person.binding, self._tokens)
        return None

    def _refuse(self, request: web.Request, refused: AccessRefused) -> web.StreamResponse:
        log_refusal(request, refused)
        response = pages.refusal_page(request, refused, sign_in=self._door.signs_out)
        if refused.refusal is Refusal.NO_ROLE:  # else the next try would end here again
            self._door.forget(request, response)
        return response

    async def _add_headers(self, _: web.Request, response: web.StreamResponse) -> None:
        response.headers.update(self._headers)


_NO_SECRET = bytes(32)
"""Stands in where there is no secret, so that what else is wrong is seen; nothing is made of it."""


def make_access(section: ConsoleSection, clock: Clock = time.time) -> Access:
    """Access as the section describes it. Reads secrets from files, and asks nobody.

    Raises:
        ValueError: secrets cannot be used, or a package is missing; a line for each says what to
            do.
    """
    if section.auth == "demo":
        return _demo_access(section, clock)
    if section.session_secret_file is None or not section.public_url:
        raise ValueError("the console needs console.public_url and console.session_secret_file")
    faults: list[str] = []
    secret, door = _NO_SECRET, None
    try:
        secret = read_session_secret(section.session_secret_file)
    except ValueError as error:
        faults.append(str(error))
    try:
        door = _make_door(section, secret, clock)
    except ValueError as error:
        faults.append(str(error))
    if faults or door is None:
        raise ValueError("\n".join(faults))
    return Access(section, door, FormTokens(secret, section.session_s, clock))


def _demo_access(section: ConsoleSection, clock: Clock) -> Access:
    secret = secrets.token_bytes(48)  # nobody else has to know it, and a restart ends all
    door = DemoDoor(section, secret, CookieJar(secure=False), clock)
    return Access(section, door, FormTokens(secret, section.session_s, clock), door.first_link)


def require_role(request: web.Request, role: Role) -> User:
    """Who sends the request, if they have at least this role.

    Raises:
        web.HTTPForbidden: they have not.
    """
    user = request[USER]
    if not user.may(role):
        log_missing_role(request, user.name, has=user.role, needs=role)
        raise web.HTTPForbidden(
            text=f"This needs the role {role}; {user.name} has the role {user.role}. Ask whoever "
            "runs loragate for it."
        )
    return user


def require_permission(request: web.Request, permission: Permission) -> User:
    """Who sends the request, if they have a permission.

    Raises:
        web.HTTPForbidden: they have not.
    """
    user = request[USER]
    if permission not in user.permissions:
        log_missing_role(request, user.name, has=user.role, needs=permission)
        raise web.HTTPForbidden(
            text=f"This needs the permission {permission}, which {user.name} does not have. Ask "
            "whoever runs loragate to name one of your groups in console.roles.concept_editor."
        )
    return user


def _takes_files(request: web.Request) -> bool:
    resource = request.match_info.route.resource
    return (
        request.method == "POST"
        and resource is not None
        and resource.canonical in UPLOADS
        and request.content_type == "multipart/form-data"
    )


def _make_door(section: ConsoleSection, secret: bytes, clock: Clock) -> Door:
    if section.auth == "proxy":
        return ProxyDoor(section.proxy)
    jar = CookieJar(secure=section.public_url.startswith("https://"))
    return _oidc_door(section, secret, jar, clock)


def _oidc_door(section: ConsoleSection, secret: bytes, jar: CookieJar, clock: Clock) -> Door:
    try:
        from loragate_server.access.login import OidcDoor
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("loragate"):
            raise
        raise ValueError(
            f"console.auth is oidc, and that needs the package {error.name}, which is missing; "
            "install it with `pip install 'loragate-server[console]'`, or set console.auth to proxy"
        ) from error
    return OidcDoor(section, secret, jar, clock)


def _is_public(request: web.Request) -> bool:
    """Whether the address is one for people who are not signed in.

    The router's own reading of the path counts, so that no spelling of it can look public here
    and be a page there.
    """
    resource = request.match_info.route.resource
    return resource is not None and resource.canonical in _PUBLIC


async def _home(_: web.Request) -> web.Response:
    raise web.HTTPSeeOther(HOME)


async def _style(_: web.Request) -> web.Response:
    return pages.style_sheet()
