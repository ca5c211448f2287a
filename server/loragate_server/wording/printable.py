"""Text from outside, made fit for a page."""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = frozenset({"Cc", "Cs", "Cn", "Co"})
# They reorder or hide what surrounds them: a name must not rewrite the sentence about it.
_REORDERING = re.compile("[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def printable(text: str, limit: int = 0) -> str:
    """Text from outside, fit for a page: what is invisible or reorders its surroundings is marked.

    Args:
        text: for example a name that the maker of a file chose.
        limit: most characters, the last one then an ellipsis; 0 for all.
    """
    shown = "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(one) in _INVISIBLE else one
        for one in _REORDERING.sub("\N{REPLACEMENT CHARACTER}", re.sub(r"[\t\r\n]+", " ", text))
    )
    return shown if not limit or len(shown) <= limit else f"{shown[: limit - 1].rstrip()}…"
