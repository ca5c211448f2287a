"""Which language a reader gets."""

from __future__ import annotations

import re
from collections.abc import Mapping

from loragate_server.report.wording import Language

LANGUAGE_FIELD = "language"
"""Name of the query field, and with a prefix of the cookie, that hold a choice."""

LANGUAGE_COOKIE = f"loragate_{LANGUAGE_FIELD}"
_PREFERENCE = re.compile(
    r"\s*([A-Za-z]{1,8})(?:-[A-Za-z0-9-]+)?\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*"
)


def chosen_language(
    query: Mapping[str, str], cookies: Mapping[str, str], accept_language: str
) -> Language:
    """What the address says, else what was chosen before, else what the browser prefers."""
    for choice in (query.get(LANGUAGE_FIELD), cookies.get(LANGUAGE_COOKIE)):
        if choice in list(Language):
            return Language(choice)
    return _preferred(accept_language)


def _preferred(accept_language: str) -> Language:
    """The language of ours with the highest weight, the first of equal ones; else English."""
    best, weight = Language.EN, 0.0
    for part in accept_language[:500].split(","):
        match = _PREFERENCE.fullmatch(part)
        if match is None or match[1].lower() not in list(Language):
            continue
        wanted = float(match[2] or 1)
        if wanted > weight:
            best, weight = Language(match[1].lower()), wanted
    return best
