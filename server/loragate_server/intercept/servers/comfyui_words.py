"""Words in ComfyUI's inputs that name no LoRA: that there is none, and how one is applied."""

from __future__ import annotations

import re

from loragate_server.intercept.reading.lora_words import begins_last_word

_NONE = frozenset({"", "none", "[none]"})
_HOW = re.compile(
    r"(^|_)(mode|type|on|enabled|active|count|str|weight|wt|dtype|rank|switch)"
    r"(_?[0-9]+|_model|_clip)?$|^clipStrength$",
    re.IGNORECASE,
)


def is_none(text: str) -> bool:
    """Whether a text says that there is no LoRA."""
    return text.strip().casefold() in _NONE


def says_how(name: str) -> bool:
    """Whether an input says how a LoRA is applied, not which."""
    return _HOW.search(name) is not None or begins_last_word(name, "strength")
