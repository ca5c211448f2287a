"""Parts of an image model in words that people know, beside the names that engineers use."""

from __future__ import annotations

import re

from loragate_server.wording.wording import Wording

_BLOCK = re.compile(
    r"(?:^|\.)"
    r"(?:(?:down|up|transformer|single_transformer)_blocks\.(\d+)(?: – (\d+))?|mid_block)"
    r"(?:\.|$)(.*)"
)
_NUMBERED = re.compile(r"(attentions|resnets|transformer_blocks)\.(\d+)")
_KINDS = (
    (re.compile(r"\battn1\b"), "attn1"),
    (re.compile(r"\battn2\b"), "attn2"),
    (re.compile(r"\bff(?:_context)?\b"), "ff"),
    (re.compile(r"\battn\b"), "attn"),
    (re.compile(r"\bresnets\b"), "resnets"),
    (re.compile(r"\battentions\b"), "attentions"),
)


def block_in_words(wording: Wording, layer: str) -> str:
    """What a layer or a group of layers is, such as "block 2, attention to the prompt".

    Blocks are counted from 1, in the order of the forward pass. "" where the name says nothing.

    Args:
        wording: of the language.
        layer: name in the model, for example "down_blocks.1.attentions.0".
    """
    found = _BLOCK.search(layer)
    if found is None:
        return ""
    number, last, rest = found.groups()
    words = wording("block.middle")
    if last is not None:
        words = wording("block.several", first=int(number) + 1, last=int(last) + 1)
    elif number is not None:
        words = wording("block.number", n=int(number) + 1)
    kind = next((key for pattern, key in _KINDS if pattern.search(rest)), "")
    if not kind:
        return words
    numbers = [int(place) + 1 for _, place in _NUMBERED.findall(rest)]
    what = wording(f"block.{kind}")
    if numbers:
        what = wording("block.counted", what=what, n="-".join(map(str, numbers)))
    return wording("block.within", block=words, what=what)
