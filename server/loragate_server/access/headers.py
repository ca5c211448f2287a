"""Headers of every answer of the console, and the one that every request must have."""

from __future__ import annotations

from typing import Final

from aiohttp import hdrs, web
from yarl import URL

from loragate_server.access.refusals import AccessRefused, Refusal

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With no-referrer, browsers would send forms with `Origin: null`.
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
STRICT_TRANSPORT: Final = "max-age=31536000"
_DEFAULT_PORT: Final = {"http": 80, "https": 443}


def security_headers(public_url: str) -> dict[str, str]:
    """What every answer carries, errors included."""
    if URL(public_url).scheme == "https":
        return {**SECURITY_HEADERS, "Strict-Transport-Security": STRICT_TRANSPORT}
    return dict(SECURITY_HEADERS)


def check_host(request: web.Request, public_url: str) -> None:
    """Believes only requests for the console's own host.

    A name of a stranger's that leads to this address would otherwise make the stranger's page and
    the console one site to browsers.

    Raises:
        AccessRefused: another host, none, or several.
    """
    named = request.headers.getall(hdrs.HOST, [])
    if len(named) != 1 or not _same_host(named[0], URL(public_url)):
        raise AccessRefused(Refusal.WRONG_HOST, public_url)


def _same_host(named: str, public: URL) -> bool:
    default = _DEFAULT_PORT[public.scheme]
    try:
        given = URL.build(scheme=public.scheme, authority=named.lower())
        return (
            given.user is None
            and given.host == public.host
            and (given.port or default) == (public.port or default)
        )
    except ValueError:
        return False
