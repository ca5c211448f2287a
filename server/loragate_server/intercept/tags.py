"""LoRA tags in prompts: `<lora:NAME:te:unet>` and what the servers add to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from loragate_server.intake.adapter import Strength
from loragate_server.intercept.refusals import ambiguous_adapter, unnamed
from loragate_server.intercept.strengths import strength_in_text, strongest

_TAG = re.compile(r"<(\w+):([^>]+)>")
_LORA = frozenset({"lora", "lyco"})
_HYPERNETWORK = "hypernet"
_DENOISER_PARTS = ("in", "mid", "out")
"""Blocks of the denoiser that SD.Next gives strengths of their own."""
_DYNAMIC = re.compile(r"[{}|$#<\x00-\x1f]")


@dataclass(frozen=True)
class Tag:
    """A tag in a prompt.

    Attributes:
        name: of the LoRA, as written.
        span: where the name stands in the prompt.
        strength: as the tag gives it.
    """

    name: str
    span: tuple[int, int]
    strength: Strength


def tags_in(text: str, place: str, default: float = 1.0) -> Iterator[Tag]:
    """The LoRA tags of a prompt.

    Args:
        text: the prompt.
        place: where it stands, for people.
        default: the strength of a tag that gives none.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED or ADAPTER_AMBIGUOUS for a tag that cannot be read.
    """
    if "<" not in text:
        return
    for match in _TAG.finditer(text):
        kind = match[1].casefold()
        if kind == _HYPERNETWORK:
            raise unnamed(place, "loads a hypernetwork.", "Leave the tag out.")
        if kind in _LORA:
            yield _tag(match[2], match.start(2), place, default)


def without_tags(text: str) -> str:
    """The prompt without anything that is a tag."""
    return _TAG.sub("", text)


def _tag(arguments: str, begin: int, place: str, default: float) -> Tag:
    items = arguments.split(":")
    name = items[0]
    if "=" in name or _DYNAMIC.search(name):
        raise unnamed(place, "has a tag without a plain name.", "Write <lora:name:strength>.")
    named = [item.partition("=")[::2] for item in items[1:] if "=" in item]
    positional = [item for item in items[1:] if "=" not in item]
    given = dict(named)
    known = {"te", "unet", *_DENOISER_PARTS}
    if len(given) != len(named) or not set(given) <= known or len(positional) > 2:
        raise ambiguous_adapter(
            place,
            "has a tag with arguments that an audit cannot take in.",
            "Write <lora:name:strength>, without dyn or block weights.",
        )
    numbers = [strength_in_text(item, place) for item in positional]
    given_numbers = {part: strength_in_text(item, place) for part, item in given.items()}
    text_encoder = given_numbers.get("te", numbers[0] if numbers else default)
    # A1111 takes the named te for the denoiser as well, unless that has its own number.
    denoiser = given_numbers.get("unet", numbers[1] if len(numbers) > 1 else text_encoder)
    parts = [given_numbers[part] for part in _DENOISER_PARTS if part in given_numbers]
    denoiser = strongest(denoiser, *parts)
    return Tag(name, (begin, begin + len(name)), Strength(denoiser, text_encoder))
