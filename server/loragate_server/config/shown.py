"""What of settings people are shown: addresses without what in them may be a secret."""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

_ADDRESS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/?#\s]*@)?(?P<place>[^?#\s]*)"
    r"(?P<query>\?[^#\s]*)?"
)
_PASSWORD = re.compile(r"((?:\?|&)\w*password=)[^&#]*", re.IGNORECASE)


def without_secrets(settings: Any) -> Any:
    """Settings as `model_dump` gives them, with what `shown_address` hides hidden in every text."""
    if isinstance(settings, dict):
        return {name: without_secrets(value) for name, value in settings.items()}
    if isinstance(settings, list):
        return [without_secrets(value) for value in settings]
    return shown_address(settings) if isinstance(settings, str) else settings


def shown_address(text: str) -> str:
    """The text with names, passwords and values of queries in its addresses as ***.

    Which value of a query is a secret, only the one who is asked knows, so all are hidden; their
    names stay, and so does the path. A text without an address stays as it is.
    """
    return _ADDRESS.sub(_hidden, text)


def shown_database(url: str) -> str:
    """A URL of SQLAlchemy with its passwords as ***; what else it says of the connection stays."""
    from sqlalchemy.engine import make_url  # here, because most commands need no database

    return _PASSWORD.sub(rf"\g<1>{HIDDEN}", make_url(url).render_as_string())


def _hidden(found: re.Match[str]) -> str:
    user = f"{HIDDEN}@" if found["user"] else ""
    query = found["query"] or ""
    return f"{found['scheme']}{user}{found['place']}{_query(query)}"


def _query(query: str) -> str:
    """The query, from its question mark on, without its values."""
    if len(query) < 2:
        return query
    parts = (part.partition("=") for part in query[1:].split("&"))
    return "?" + "&".join(f"{name}={HIDDEN}" if sign else HIDDEN for name, sign, _ in parts)
