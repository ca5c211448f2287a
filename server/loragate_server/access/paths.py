"""Addresses of the console that access cares about, and which of them may be returned to."""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit

PREFIX: Final = "/console"
HOME: Final = f"{PREFIX}/"
LOGIN: Final = f"{PREFIX}/login"
CALLBACK: Final = f"{PREFIX}/callback"
LOGOUT: Final = f"{PREFIX}/logout"
SIGNED_OUT: Final = f"{PREFIX}/signed-out"
STYLE: Final = f"{PREFIX}/access.css"
STATIC: Final = f"{PREFIX}/static/{{name}}"
"""Route of the pages' style sheets; they tell nothing, so they need no sign-in."""

UPLOADS: Final = frozenset({f"{PREFIX}/changes"})
"""Routes that take forms with files."""

MAX_TARGET_CHARS: Final = 1000
_OWN: Final = frozenset({LOGIN, CALLBACK, LOGOUT, SIGNED_OUT})


def below_prefix(path: str) -> str:
    """The path as a sub-application mounted at `PREFIX` knows it."""
    return path.removeprefix(PREFIX)


def local_target(wanted: str) -> str:
    """Where to go after sign-in: `wanted` if that is surely a page of the console, else its home.

    Browsers read addresses generously (`//host`, backslashes, encoded dots, line breaks), so what
    is in any way unusual is not followed.
    """
    plain = unquote(wanted)
    path = urlsplit(plain).path if plain.startswith(HOME) else ""
    if (
        not path.startswith(HOME)
        or len(wanted) > MAX_TARGET_CHARS
        or not wanted.isascii()
        or not plain.isprintable()
        or "\\" in plain
        or "%" in path  # encoded twice
        or "//" in path
        or any(part in (".", "..") for part in path.split("/"))
        or path.rstrip("/") in _OWN
    ):
        return HOME
    return wanted
