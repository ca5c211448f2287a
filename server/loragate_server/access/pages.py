"""The pages that people see who are not signed in."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from aiohttp import hdrs, web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from ruamel.yaml import YAML

from loragate_server.access.paths import LOGIN, STYLE
from loragate_server.access.refusals import AccessRefused, Refusal
from loragate_server.report.language import chosen_language

_HERE: Final = Path(__file__).parent
_WITHOUT_LINK: Final = frozenset(
    {Refusal.WRONG_HOST, Refusal.PROXY_UNTRUSTED, Refusal.PROXY_HEADERS}
)
_RETRY_AFTER_S: Final = 30


@cache
def _environment() -> Environment:
    return Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)


@cache
def words() -> dict[str, dict[str, Any]]:
    """Code to language to title and text, as `wording.yaml` has them."""
    wording: dict[str, dict[str, Any]] = YAML(typ="safe").load(_HERE / "wording.yaml")
    return wording


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
        request.query, request.cookies, request.headers.get(hdrs.ACCEPT_LANGUAGE, "")
    )
    title, text = words()[code][language]
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            language=language,
            code=str(code),
            title=title,
            text=text.replace("{detail}", detail or "-"),
            link=link,
            link_text=words()[link_code][language],
            onward=onward,
            style=STYLE,
        )
    )
    return web.Response(text=html, content_type="text/html")
