"""Whether a name, of an input, a node or a field, speaks of a LoRA."""

from __future__ import annotations

import re

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
    if _WORD.search(name) is None:  # most names, at once
        return False
    return _WORD.search(_BY_CHANCE.sub("", name)) is not None
