"""Whether the parts of a text may become a tag when a server draws its choices.

Servers replace `{a|b}` by one of its parts and leave comments out, after the gate has read the
text. What stands apart in the request may stand together in the prompt then.
"""

from __future__ import annotations

import re
from bisect import bisect_left

_MARKS = frozenset("{}|")
_ENDS = frozenset("{}|:")
"""What a drawn part may begin behind: a mark, or the weight of a choice, `0.5::`."""
_ANY_ORDER = re.compile(r"\$\$|\$\{|\d#__")
"""Several parts at once come in any order, with a text of the sender's between them."""
_MARK = re.compile(r"[{}|]|::")
_OPENERS = ("<lora:", "<lyco:", "<loractl:", "<hypernet:")


def _bits() -> tuple[dict[str, int], int, int]:
    """For every letter, the places in all openers where it stands; the first; behind the last.

    One bit stands for one place in one opener, so that a text is read once for all of them.
    """
    places: dict[str, int] = {}
    first = done = 0
    bit = 1
    for opener in _OPENERS:
        first |= bit
        for letter in opener:
            places[letter] = places.get(letter, 0) | bit
            bit <<= 1
        done |= bit
        bit <<= 1
    return places, first, done


_PLACES, _FIRST, _DONE = _bits()


def may_become_a_tag(text: str) -> bool:
    """Whether drawing choices or leaving comments out could make a tag that is not there now.

    Takes time in proportion to the text, whatever stands in it.

    Args:
        text: with every whole tag replaced by ">", so that only what is left counts.
    """
    if "<" not in text or not any(mark in text for mark in "{#"):
        return False
    lowered = _without_blanks_around_marks(text.casefold())
    if "{" in lowered and _ANY_ORDER.search(lowered):
        letters = set(lowered)
        return any(set(one) <= letters for one in _OPENERS)
    return _can_join(lowered)


def _without_blanks_around_marks(text: str) -> str:
    """Mark by mark: one split of a text of marks alone would hold the interpreter for a second."""
    parts: list[str] = []
    at = 0
    for mark in _MARK.finditer(text):
        part = text[at : mark.start()]
        parts += (part.strip() if at else part.rstrip(), mark.group())
        at = mark.end()
    return "".join([*parts, text[at:].lstrip()]) if at else text


def _can_join(text: str) -> bool:
    """Whether the letters of an opener can come to stand together."""
    comments = _Comments(text)
    here = anywhere = 0
    """Which places of openers may be filled by the next letter, and by any behind a mark."""
    later: dict[int, int] = {}
    previous = ""
    for at, letter in enumerate(text):
        if later:
            here |= later.pop(at, 0)
        if anywhere and previous in _ENDS:
            here |= anywhere
        here = ((here | _FIRST) & _PLACES.get(letter, 0)) << 1
        if here & _DONE:
            return True
        if here:
            following = text[at + 1 : at + 2]
            if following == "#":
                landing = comments.behind(at + 1)
                later[landing] = later.get(landing, 0) | here
            elif following in _MARKS:
                anywhere |= here
        previous = letter
    return False


class _Comments:
    """Where a text goes on at a place from which lines may be left out."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._known: dict[int, int] = {}

    def behind(self, at: int) -> int:
        """Behind the comment at a place and those that follow it."""
        text, passed = self._text, []
        while text.startswith("#", at) and (number := bisect_left(self._ends, at)) < len(
            self._ends
        ):
            if number in self._known:
                at = self._known[number]
                break
            passed.append(number)
            at = self._ends[number] + 1
            while at < len(text) and text[at].isspace():
                at += 1
        self._known.update(dict.fromkeys(passed, at))
        return at
