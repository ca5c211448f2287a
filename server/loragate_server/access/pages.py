"""The pages that people see who are not signed in."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from loragate_server.access.paths import LOGIN, STYLE
from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.wording.catalogue import Catalogue
from loragate_server.wording.choice import chosen_language
from loragate_server.wording.wording import Wording

_HERE: Final = Path(__file__).parent
ACCESS: Final = Catalogue(_HERE / "languages")
"""The sentences of these pages."""

_WITHOUT_LINK: Final = frozenset(
    {Refusal.WRONG_HOST, Refusal.PROXY_UNTRUSTED, Refusal.PROXY_HEADERS, Refusal.DEMO_LINK}
)
_RETRY_AFTER_S: Final = 30


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)


def refusal_page(request: web.Request, refused: AccessRefused, *, sign_in: bool) -> web.Response:
    """The answer to somebody who is not let in.

    Args:
        request: theirs.
        refused: why.
        sign_in: whether a link that begins a sign-in would help.
    """
    refusal = refused.refusal
    response = _page(
        request,
        refusal,
        detail=refused.detail,
        link=LOGIN if sign_in and refusal not in _WITHOUT_LINK else "",
    )
    response.set_status(refusal.status)
    if refusal is Refusal.PROVIDER_DOWN:
        response.headers[hdrs.RETRY_AFTER] = str(_RETRY_AFTER_S)
    return response


def signed_out_page(request: web.Request) -> web.Response:
    """What people see after they have left."""
    return _page(request, "signed_out", link=LOGIN)


def signing_out_page(request: web.Request, onward: str) -> web.Response:
    """Leads on to the provider, whose session would otherwise let the next person in.

    It does so by a page, because browsers hold a redirect that answers a form to the
    `form-action` of the policy.
    """
    return _page(request, "signing_out", link=onward, link_code="onward", onward=onward)


def style_sheet() -> web.Response:
    """The style of these pages."""
    return web.Response(text=_style(), content_type="text/css")


@cache
def _style() -> str:
    return (_HERE / "access.css").read_text(encoding="utf-8")


def _page(
    request: web.Request,
    code: str,
    *,
    detail: str = "",
    link: str = "",
    link_code: str = "again",
    onward: str = "",
) -> web.Response:
    language = chosen_language(
        request.query,
        request.cookies,
        request.headers.get(hdrs.ACCEPT_LANGUAGE, ""),
        ACCESS.languages,
    )
    wording = Wording(language, ACCESS)
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            language=language,
            code=str(code),
            title=wording(f"{code}.title"),
            text=wording(f"{code}.text", detail=detail or "-"),
            link=link,
            link_text=wording(f"link.{link_code}"),
            onward=onward,
            style=STYLE,
        )
    )
    return web.Response(text=html, content_type="text/html")
