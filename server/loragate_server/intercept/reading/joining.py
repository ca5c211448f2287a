"""Whether the parts of a text may become a tag when a server draws its choices.

Servers replace `{a|b}` by one of its parts and leave comments out, after the gate has read the
text. What stands apart in the request may stand together in the prompt then.
"""

from __future__ import annotations

import re

_MARKS = "{}|"
_ENDS = frozenset("{}|:")
"""What a drawn part may begin behind: a mark, or the weight of a choice, `0.5::`."""
_ANY_ORDER = re.compile(r"\$\$|\$\{|\d#__")
"""Several parts at once come in any order, with a text of the sender's between them."""
_AROUND_MARKS = re.compile(r"\s*([{}|]|::)\s*")
_OPENERS = ("<lora:", "<lyco:", "<loractl:", "<hypernet:")


def may_become_a_tag(text: str) -> bool:
    """Whether drawing choices or leaving comments out could make a tag that is not there now.

    Args:
        text: with every whole tag replaced by ">", so that only what is left counts.
    """
    if not any(mark in text for mark in "{#"):
        return False
    lowered = _AROUND_MARKS.sub(r"\1", text.casefold())
    if "<" not in lowered:
        return False
    if "{" in lowered and _ANY_ORDER.search(lowered):
        return any(set(one) <= set(lowered) for one in _OPENERS)
    return any(_can_join(lowered, one) for one in _OPENERS)


def _can_join(text: str, word: str) -> bool:
    """Whether the letters of a word can come to stand together."""
    ends = {at + 1 for at, letter in enumerate(text) if letter == word[0]}
    for letter in word[1:]:
        ends = {at + 1 for at in _next(text, ends) if text[at] == letter}
        if not ends:
            return False
    return True


def _next(text: str, ends: set[int]) -> set[int]:
    """Where the letter behind one that ends at one of these places may stand."""
    found = {end for end in ends if end < len(text)}
    for end in ends:
        found.add(_behind_comments(text, end))
    jumps = [end for end in ends if end < len(text) and text[end] in _MARKS]
    if jumps:
        first = min(jumps)
        found |= {at for at in range(first + 1, len(text)) if text[at - 1] in _ENDS}
    return found


def _behind_comments(text: str, at: int) -> int:
    """Where a text goes on at a place from which lines may be left out."""
    while text.startswith("#", at) and (line := text.find("\n", at)) >= 0:
        at = line + 1
        while at < len(text) and text[at].isspace():
            at += 1
    return min(at, len(text) - 1)
