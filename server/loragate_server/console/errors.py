"""Error pages: every failure as a page with a cause and a way on."""

from __future__ import annotations

import logging
from http import HTTPStatus

from aiohttp import web

from loragate_server.console.frame import WORDING, Handler, page
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.wording.printable import printable

_log = logging.getLogger(__name__)

_STATUSES = {
    ErrorReason.DECISION_UNKNOWN: HTTPStatus.NOT_FOUND,
    ErrorReason.CONCEPT_UNKNOWN: HTTPStatus.NOT_FOUND,
    ErrorReason.PAGE_TOKEN_INVALID: HTTPStatus.BAD_REQUEST,
    ErrorReason.REQUEST_INVALID: HTTPStatus.BAD_REQUEST,
    ErrorReason.POLICY_INVALID: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorReason.DATABASE_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorReason.DECISION_LOG_UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
    ErrorReason.DISK_FULL: HTTPStatus.SERVICE_UNAVAILABLE,
}
_KEPT_HEADERS = ("Allow", "Location", "WWW-Authenticate", "Retry-After", "Set-Cookie")
_LONGEST = 1000


@web.middleware
async def show_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers with an error page whatever is raised; redirections pass."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        return error_page(request, error.status, _sentence(error), _kept(error))
    except NoDecisionError as error:
        status = _STATUSES.get(error.reason, HTTPStatus.INTERNAL_SERVER_ERROR)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.warning("the console cannot show %s: %s", request.path, error)
        return error_page(request, status, f"{error.message} {error.remedy}")
    except Exception:
        _log.exception("the console failed on %s %s", request.method, request.path)
        return error_page(request, HTTPStatus.INTERNAL_SERVER_ERROR)


def error_page(
    request: web.Request, status: int, details: str = "", headers: dict[str, str] | None = None
) -> web.Response:
    """A page that says what went wrong.

    Args:
        request: answered with the page.
        status: 400 or more.
        details: a recorded sentence in English, shown as it is; "" for none.
        headers: further headers.
    """
    known = request[WORDING].known(f"error.title_{status}")
    kind = status if known else 400 if status < HTTPStatus.INTERNAL_SERVER_ERROR else 500
    return page(
        request,
        "error",
        status=status,
        headers=headers,
        kind=kind,
        details=printable(details, _LONGEST),
    )


def _sentence(error: web.HTTPException) -> str:
    """The text of an error, where somebody gave it one; aiohttp's own says nothing more."""
    text = error.text or ""
    return "" if text == f"{error.status}: {error.reason}" else text


def _kept(error: web.HTTPException) -> dict[str, str]:
    return {name: error.headers[name] for name in _KEPT_HEADERS if name in error.headers}
