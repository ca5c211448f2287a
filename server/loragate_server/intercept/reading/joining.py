"""Whether the parts of a text may become a tag when a server draws its choices.

Servers replace `{a|b}` by one of its parts and leave comments out, after the gate has read the
text. What stands apart in the request may stand together in the prompt then. SD.Next takes tags
out of a prompt and looks for tags in what is left, so what stands around one may be another.
"""

from __future__ import annotations

import re
from bisect import bisect_left

_MARKS = frozenset("{}|")
_WEIGHT = ":"
"""SD.Next leaves out what stands behind it in a choice, `{a:0.5|b:2}`, be it a number or not."""
_ENDS = frozenset("{}|:")
"""What a drawn part may begin behind: a mark, or the weight of a choice, `0.5::`."""
_ANY_ORDER = re.compile(r"\$\$|\$\{|\d#__")
"""Several parts at once come in any order, with a text of the sender's between them."""
_OPENERS = ("<lora:", "<lyco:", "<loractl:", "<hypernet:", "<style:")


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


def may_become_a_tag(text: str, *, again: bool = False) -> bool:
    """Whether drawing choices or leaving comments out could make a tag that is not there now.

    Takes time in proportion to the text, whatever stands in it.

    Args:
        text: with every whole tag replaced by ">", so that only what is left counts.
        again: whether the server takes tags out and looks for tags in what is left.
    """
    if "<" not in text or not any(mark in text for mark in ("{#>" if again else "{#")):
        return False
    lowered = text.casefold()
    if "{" in lowered and _ANY_ORDER.search(lowered):
        letters = set(lowered)
        return any(set(one) <= letters for one in _OPENERS)
    return _Joining(lowered, again=again).found()


class _Joining:
    """Whether the letters of an opener can come to stand together in one text.

    Blanks around marks are left out by servers, and are passed over.
    """

    def __init__(self, text: str, *, again: bool) -> None:
        self._text = text
        self._again = again
        self._comments = _Comments(text)
        self._anywhere = 0
        """Which places of openers may be filled behind any mark."""
        self._here: dict[int, int] = {}
        self._before_mark: dict[int, int] = {}
        """Where comments end: what stood before them, and before blanks and them."""
        self._parts: set[int] = set()
        """Where parts begin whose first lines are comments."""
        self._around = 0
        """Which places of openers may be filled behind a tag that is taken out."""

    def found(self) -> bool:
        """Letter by letter: the places that the next one may fill, and those before blanks."""
        here = waiting = 0
        begins = opened = False
        for at, letter in enumerate(self._text):
            if self._here or self._before_mark:
                here |= self._here.pop(at, 0)
                waiting |= self._before_mark.pop(at, 0)
            if letter.isspace():
                waiting, here = waiting | here, 0
                continue
            if letter in _MARKS or (letter == _WEIGHT and opened):
                self._anywhere |= here | waiting
            elif letter == "#":
                self._leave_out(at, here, waiting, begins)
            begins = begins or at in self._parts
            filled = here | _FIRST | (self._anywhere if begins else 0)
            if letter == ">" and self._again:
                here = filled | self._around
            else:
                self._around |= filled if letter == "<" else 0
                here = (filled & _PLACES.get(letter, 0)) << 1
            if here & _DONE:
                return True
            begins, waiting = letter in _ENDS, 0
            opened = opened or letter == "{"
        return False

    def _leave_out(self, at: int, here: int, waiting: int, begins: bool) -> None:
        """A comment begins here, and the text may go on behind it."""
        if not (here or waiting or begins):
            return
        behind = self._comments.behind(at)
        if behind == at:
            return
        if here:
            self._here[behind] = self._here.get(behind, 0) | here
        if waiting:
            self._before_mark[behind] = self._before_mark.get(behind, 0) | waiting
        if begins:
            self._parts.add(behind)


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
