"""Whether a name, of an input, a node or a field, speaks of a LoRA."""

from __future__ import annotations

import re
import string
from functools import lru_cache

_IN_WORDS = f"{string.ascii_lowercase}{string.digits}_"
_KEPT_CHARS = 256
"""Longer names are looked at anew each time, so that what is kept stays small."""

_WORD = re.compile(
    r"(?<![cC]o)(?<![fF])l[oO][rR][aA]|L(?!ORA)[oO][rR][aA]|(?<!CO)(?<!F)LORA"
    r"|[lL][yY][cC][oO]|[lL][oO][cC][oO][nN]"
)
# Whole words, and stems, of English that hold the letters by chance. "color adjust" and "flora" are
# told by the letters before, so that "ColorLoRA" still speaks of one.
_BY_CHANCE = re.compile(
    r"explora(?=t|b)|(?:dep|imp)lora(?=t|b)|(?<![a-z])chlora(?=t|l|m)|valorant", re.IGNORECASE
)


def speaks_of_lora(name: str) -> bool:
    """Whether a name holds "lora", "lyco" or "locon", in any letters, other than by chance."""
    return _kept(name) if len(name) <= _KEPT_CHARS else _found_in(name)


def _found_in(name: str) -> bool:
    if _WORD.search(name) is None:  # most names, at once
        return False
    return _WORD.search(_BY_CHANCE.sub("", name)) is not None


_kept = lru_cache(maxsize=4096)(_found_in)


def begins_last_word(name: str, word: str) -> bool:
    """Whether a name has a part that begins so, with nothing but letters, digits and `_` behind it.

    Parts begin behind `_`. A pattern would try each of them to the end of the name.
    """
    lowered = name.casefold()
    end = lowered[len(lowered.rstrip(_IN_WORDS)) :]
    return f"_{word}" in end or (end == lowered and end.startswith(word))
