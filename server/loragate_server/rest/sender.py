"""What browsers and proxies say of who sent a request; programs on this machine say nothing."""

from __future__ import annotations

import ipaddress

from aiohttp import hdrs, web
from yarl import URL

from loragate_server.errors import ErrorReason
from loragate_server.rest.problem import HttpRefusalError

_OWN = frozenset({"same-origin", "none"})
_PROXIES = (
    "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP"
)  # fmt: skip


def check_sender(request: web.Request, public_url: str, *, anonymous: bool) -> None:
    """Refuses what a page of another site makes a browser send.

    Args:
        request: the request.
        public_url: of the console, whose pages are the only ones that may ask; empty without one.
        anonymous: whether callers show nothing, so that being on this machine is all that lets them
            in. Then a name that a stranger has led to this machine is refused too, and so is
            everything where a proxy stands in front: behind it anybody is on this machine.

    Raises:
        NoDecisionError: PERMISSION_DENIED.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in _OWN:
        raise _refused(403, "Sec-Fetch-Site", "The request comes from a page of another site.")
    for sender in request.headers.getall(hdrs.ORIGIN, []):
        if not public_url or _origin(sender) != _origin(public_url):
            raise _refused(403, hdrs.ORIGIN, "The request comes from a page of another site.")
    if anonymous:
        _require_from_here(request, public_url)


def _require_from_here(request: web.Request, public_url: str) -> None:
    if not all(_is_this_machine(one) for one in request.headers.getall(hdrs.HOST, [])):
        raise _refused(421, hdrs.HOST, "The request names a host that is not this machine.")
    if public_url and not _is_loopback(URL(public_url).host or ""):
        raise _refused(
            403, hdrs.AUTHORIZATION, "Callers show a token where console.public_url is set."
        )
    if named := next((one for one in _PROXIES if one in request.headers), None):
        raise _refused(403, named, "Callers show a token where they come through a proxy.")


def _refused(status: int, header: str, message: str) -> HttpRefusalError:
    return HttpRefusalError(
        status,
        ErrorReason.PERMISSION_DENIED,
        message,
        remedy="Ask by a program, at an address such as 127.0.0.1, or configure tokens.",
        metadata={"header": header},
    )


def _is_this_machine(named: str) -> bool:
    try:
        host = URL.build(scheme="http", authority=named.lower()).host or ""
    except ValueError:
        return False
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _origin(address: str) -> str:
    try:
        return str(URL(address).origin())
    except ValueError:
        return ""
