"""What all pages have in common: language, navigation, and the templates around the content."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from yarl import URL

from loragate_server.access import CSRF_FIELD, csrf_token
from loragate_server.access.forms import FORM_TOKENS
from loragate_server.access.identity import USER
from loragate_server.access.paths import LOGOUT
from loragate_server.console.assets import ASSETS, OWN_HEADERS
from loragate_server.console.wording import CONSOLE, console_wording
from loragate_server.report.render import SIGNS
from loragate_server.report.render import TEMPLATES as REPORT_FOLDER
from loragate_server.wording.choice import LANGUAGE_COOKIE, LANGUAGE_FIELD, chosen_language
from loragate_server.wording.printable import printable
from loragate_server.wording.wording import Wording

WORDING: Final = web.RequestKey("wording", Wording)
"""The sentences in the language of the reader; there on every request."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PAGES = ("queue", "verdicts", "concepts", "trends", "pilot")
_YEAR_S = 365 * 86400
_LONGEST_NAME = 100


@dataclass(frozen=True)
class SignOut:
    """The form that ends a session."""

    address: str
    token: str


@dataclass(frozen=True)
class Link:
    """A link of the navigation. `current`: to the page, or the part of the site, one is on."""

    address: str
    text: str
    current: bool
    language: str = ""


@web.middleware
async def choose_language(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Finds the reader's language, and remembers one that was chosen by a link."""
    language = chosen_language(
        request.query,
        request.cookies,
        request.headers.get("Accept-Language", ""),
        CONSOLE.languages,
    )
    request[WORDING] = console_wording(language)
    try:
        response = await handler(request)
    except web.HTTPException as redirection:
        _remember(request, redirection, language)
        raise
    _remember(request, response, language)
    return response


def _remember(request: web.Request, response: web.StreamResponse, language: str) -> None:
    if request.query.get(LANGUAGE_FIELD) != language or response.prepared:
        return
    response.set_cookie(
        LANGUAGE_COOKIE,
        language,
        path=root(request).path.rstrip("/") or "/",
        max_age=_YEAR_S,
        httponly=True,
        samesite="Lax",
    )


def address(request: web.Request, name: str, /, **parts: str) -> URL:
    """The path of a named page, below wherever the console is mounted."""
    resource = request.app.router[name]
    return resource.url_for(**parts) if parts else resource.url_for()


def root(request: web.Request) -> URL:
    """The path of the start page."""
    return address(request, "queue")


def page(
    request: web.Request,
    template: str,
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    **facts: object,
) -> web.Response:
    """A page in the reader's language.

    Args:
        request: answered with the page.
        template: file name without its ending.
        status: of the answer.
        headers: further headers.
        facts: what the template shows, beside what every page shows.
    """
    wording, user = request[WORDING], request.get(USER)
    text = (
        _environment()
        .get_template(f"{template}.html.j2")
        .render(
            t=wording,
            language=wording.language,
            user=user,
            user_name=printable(user.name, _LONGEST_NAME) if user else "",
            sign_out=_sign_out(request),
            csrf_field=CSRF_FIELD,
            pages=_navigation(request),
            languages=_languages(request),
            address=functools.partial(address, request),
            assets=request.app[ASSETS].names,
            signs=SIGNS,
            **facts,
        )
    )
    return web.Response(text=text, content_type="text/html", status=status, headers=headers)


async def keep_own_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Puts back what a page has said for itself; runs after the access has set its headers."""
    response.headers.update(request.get(OWN_HEADERS, {}))


def _sign_out(request: web.Request) -> SignOut | None:
    """The form, for those whose sign-in is ours to end."""
    tokens = request.get(FORM_TOKENS)
    if tokens is None or not tokens.signs_out:
        return None
    return SignOut(LOGOUT, csrf_token(request, LOGOUT))


def _navigation(request: web.Request) -> tuple[Link, ...]:
    wording, path = request[WORDING], request.path
    links = []
    for name in _PAGES:
        target = address(request, name).path
        inside = path == target or (name != "queue" and path.startswith(f"{target}/"))
        links.append(Link(target, wording(f"nav.{name}"), inside))
    return tuple(links)


def _languages(request: web.Request) -> tuple[Link, ...]:
    """Links to the same page in every language; each is named in its own one."""
    wording = request[WORDING]
    return tuple(
        Link(
            str(request.rel_url.update_query({LANGUAGE_FIELD: language})),
            console_wording(language).language_name(language),
            language == wording.language,
            language,
        )
        for language in CONSOLE.languages
    )


@functools.cache
def _environment() -> Environment:
    """The console's templates first; those of the report for the parts that both show."""
    return Environment(
        loader=FileSystemLoader([Path(__file__).parent / "templates", REPORT_FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
