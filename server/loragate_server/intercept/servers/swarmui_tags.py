"""Tags in SwarmUI's prompts: `<name:data>`, some of which name LoRAs and some of which write text.

The server fills tags in three rounds, and the result of one may be a tag to the next. So only texts
are read in which no tag stands in another, and none writes text that a request does not tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loragate_server.intercept.refusals import unnamed

_PARTS = frozenset(
    {
        *("base", "refiner", "video", "videoswap", "pixeldecoder"),
        *("segment", "object", "region", "extend", "clear", "break"),
    }
)
"""What follows them is for a part of the picture, or of the work."""
_PLAIN = frozenset(
    {
        *("random", "alternate", "alt", "fromto", "repeat", "comment"),
        *("setvar", "var", "setmacro", "macro"),
    }
)
"""They choose among the words that stand in them, or repeat them."""
_WILDCARDS = frozenset({"wildcard", "wc"})
_ELSEWHERE = {
    **dict.fromkeys(("preset", "p"), "takes a preset, whose parameters may name LoRAs"),
    "param": "sets or shows a parameter",
    **dict.fromkeys(("embed", "embedding"), "loads an embedding"),
    "trigger": "puts in words from the headers of LoRAs, which may be tags",
}
_TAG = re.compile(r"<([^<>]*)>")
_LEFT_OUT = re.compile(r"[\x00\x07]")
"""Characters that the server takes out of a prompt before it looks for tags."""
_PART = "//cid="
"""In any tag, before the number of the part that follows it."""
_MOST_TAGS = 4096


@dataclass(frozen=True)
class Tag:
    """A tag of a prompt.

    Attributes:
        lora: whether it names a LoRA: then `name`, `numbers` as written, and the `span` of the
            name in the text.
        parts: whether it divides the prompt.
    """

    lora: bool
    parts: bool = False
    name: str = ""
    numbers: tuple[str, ...] = ()
    span: tuple[int, int] = (0, 0)


def holds_tag(value: Any) -> bool:
    """Whether any text in a value has the beginning of a tag for a LoRA."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if "<" in one and "<lora" in _LEFT_OUT.sub("", one).lower():
                return True
        elif isinstance(one, list):
            waiting += one
        elif isinstance(one, dict):
            waiting += one.values()
    return False


def tags_in(text: str, place: str, *, wildcards: bool) -> Iterator[Tag]:
    """The tags of a prompt that matter for its LoRAs.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED; a tag stands in another, or writes text that the
            request does not tell.
    """
    if "<" not in text or ">" not in text:
        return
    if _LEFT_OUT.search(text):
        raise unnamed(place, "holds characters that the server takes out.", "Leave them out.")
    if "<" in _TAG.sub("", text):
        raise unnamed(
            place, "holds a tag in a tag, or one that is not closed.", "Write each tag for itself."
        )
    if "<>" in text and holds_tag(text):
        # Of a tag that is not the first, the server overlooks the letter behind its bracket.
        raise unnamed(place, "holds empty brackets beside a LoRA.", "Leave them out.")
    for number, match in enumerate(_TAG.finditer(text)):
        if number >= _MOST_TAGS:
            raise unnamed(place, f"holds more than {_MOST_TAGS} tags.", "Send fewer.")
        yield from _one(match, place, wildcards=wildcards)


def _one(match: re.Match[str], place: str, *, wildcards: bool) -> Iterator[Tag]:
    if _PART in match[1]:
        yield Tag(False, parts=True)
    kind, colon, data = match[1].partition(":")
    name = kind.partition("[")[0].lower() if kind.endswith("]") else kind.lower()
    if name == "lora":
        written, *numbers = data.split(":", 2)
        begin = match.start(1) + len(kind) + 1
        yield Tag(True, name=written, numbers=tuple(numbers), span=(begin, begin + len(written)))
    elif name.partition(_PART)[0] in _PARTS:
        yield Tag(False, parts=True)
    elif name in _ELSEWHERE:
        raise unnamed(place, f"holds <{name}>, which {_ELSEWHERE[name]}.", "Leave it out.")
    elif name in _WILDCARDS:
        if not wildcards:
            raise unnamed(
                place,
                "holds a wildcard, for which the server may put in tags.",
                "Write its text out, or set allow_wildcards.",
            )
    elif colon and name not in _PLAIN:
        raise unnamed(place, "holds a tag of an unknown kind.", "Leave it out.")
