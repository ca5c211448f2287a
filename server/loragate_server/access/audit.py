"""What the server's log says of people coming, being refused, and leaving. Never a token."""

from __future__ import annotations

import logging

from aiohttp import hdrs, web

from loragate_server.access.identity import USER, Permission, Role
from loragate_server.access.refusals import AccessRefused, Refusal

_LOG = logging.getLogger("loragate_server.access")
_ORDINARY = frozenset({Refusal.SIGN_IN, Refusal.LOGIN_UNKNOWN})
"""Happens to everybody whose session ends."""


def log_sign_in(request: web.Request, name: str, role: Role) -> None:
    """Somebody has signed in."""
    _LOG.info("signed in", extra={"user": name, "role": str(role), "peer": request.remote})


def log_sign_out(request: web.Request, name: str) -> None:
    """Somebody has left."""
    _LOG.info("signed out", extra={"user": name, "peer": request.remote})


def log_refusal(request: web.Request, refused: AccessRefused) -> None:
    """Somebody was not let in, or a form of theirs was refused."""
    user = request.get(USER)
    level = logging.INFO if refused.refusal in _ORDINARY else logging.WARNING
    _LOG.log(
        level,
        "access refused: %s",
        refused.refusal,
        extra={
            "reason": refused.detail,
            "user": user.name if user else "",
            "method": request.method,
            "host": request.headers.get(hdrs.HOST, ""),
            "path": request.path,
            "peer": request.remote,
        },
    )


def log_missing_role(request: web.Request, name: str, has: Role, needs: Role | Permission) -> None:
    """Somebody tried what only a higher role, or another permission, may."""
    _LOG.warning(
        "role refused",
        extra={
            "user": name,
            "role": str(has),
            "needs": str(needs),
            "method": request.method,
            "path": request.path,
            "peer": request.remote,
        },
    )
