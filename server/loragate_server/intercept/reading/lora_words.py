"""Whether a name, of an input, a node or a field, speaks of a LoRA."""

from __future__ import annotations

import re

# English has words that hold the letters by chance: exploration, color adjust, flora.
_WORD = re.compile(
    r"(?<![eE]xp)(?<![cC]o)(?<![fF])l[oO][rR][aA]"
    r"|L(?!ORA)[oO][rR][aA]"
    r"|(?<!EXP)(?<!CO)(?<!F)LORA"
    r"|[lL][yY][cC][oO]|[lL][oO][cC][oO][nN]"
)


def speaks_of_lora(name: str) -> bool:
    """Whether a name holds "lora", "lyco" or "locon", in any letters, other than by chance."""
    return _WORD.search(name) is not None
