"""Which language a reader gets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from babel.core import negotiate_locale

from loragate_server.wording.catalogue import DEFAULT_LANGUAGE

LANGUAGE_FIELD = "language"
"""Name of the query field, and with a prefix of the cookie, that hold a choice."""

LANGUAGE_COOKIE = f"loragate_{LANGUAGE_FIELD}"
_PREFERENCE = re.compile(
    r"\s*([A-Za-z]{1,8}(?:-[A-Za-z0-9-]+)?)\s*(?:;\s*q=([01](?:\.\d{0,3})?))?\s*"
)


def chosen_language(
    query: Mapping[str, str],
    cookies: Mapping[str, str],
    accept_language: str,
    offered: Sequence[str],
) -> str:
    """What the address says, else what was chosen before, else what the browser prefers.

    Args:
        query: of the address.
        cookies: of the request.
        accept_language: the header, or nothing.
        offered: the languages that there are.
    """
    for choice in (query.get(LANGUAGE_FIELD), cookies.get(LANGUAGE_COOKIE)):
        if choice is not None and choice in offered:
            return choice
    found = negotiate_locale(_preferred(accept_language), offered, sep="-") or DEFAULT_LANGUAGE
    # It comes as the browser spells it.
    return next(one for one in offered if one.casefold() == found.casefold())


def _preferred(accept_language: str) -> list[str]:
    """The languages that a browser asks for, by falling weight, the first of equal ones first."""
    matches = map(_PREFERENCE.fullmatch, accept_language[:500].split(","))
    weights = {match[1]: float(match[2] or 1) for match in matches if match}
    return sorted((one for one in weights if weights[one]), key=weights.__getitem__, reverse=True)
