"""What stable-diffusion.cpp reads in a prompt: further arguments, and tags where it takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from loragate_server.intercept.reading.strengths import strength_in_text
from loragate_server.intercept.refusals import ambiguous_adapter

ARGUMENTS = "sd_cpp_extra_args"
_BEGIN, _END = f"<{ARGUMENTS}>", f"</{ARGUMENTS}>"
_LINE = re.compile(r"[^\r\n]+")
_TAG = "<lora:"
_NOISE = "|high_noise|"
# As far as `std::stof` reads; what follows the number it leaves alone.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_OTHER_NUMBER = re.compile(r"[ \t\n\v\f\r]*[+-]?(?:0x|inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """A prompt, and the block of arguments that the server takes out of it.

    Attributes:
        whole: as it was sent.
        span: where the block stands, with its marks; empty where there is none.
        arguments: what stands between the marks.
    """

    whole: str
    span: tuple[int, int]
    arguments: str = ""

    @property
    def text(self) -> str:
        """What is left for the model. What stood before and behind the block stands together."""
        return self.whole[: self.span[0]] + self.whole[self.span[1] :]

    @property
    def begin(self) -> int:
        """Where the arguments begin in the whole."""
        return self.span[0] + len(_BEGIN)

    def sent(self, span: tuple[int, int]) -> tuple[int, int] | None:
        """Where a part of the text stands in the whole; None where the block has parted it."""
        shift = self.span[1] - self.span[0]
        if span[1] <= self.span[0]:
            return span
        return (span[0] + shift, span[1] + shift) if span[0] >= self.span[0] else None


@dataclass(frozen=True)
class Tag:
    """A tag as sd-cli reads it.

    Attributes:
        span: where the name stands in the text.
        high_noise: whether it is for the model of the steps with much noise.
    """

    name: str
    span: tuple[int, int]
    strength: float
    high_noise: bool


def read_prompt(whole: str, place: str) -> Prompt:
    """Finds the arguments in a prompt. The server's expression stays within a line.

    It reads the first block and drops all others, which nobody means.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS for several blocks, and for one that does not end
            where it begins, which the server takes for words of the prompt.
    """
    if _BEGIN not in whole:
        return Prompt(whole, (len(whole), len(whole)))
    for line in _LINE.finditer(whole):
        begin = whole.find(_BEGIN, line.start(), line.end())
        end = whole.find(_END, begin, line.end()) if begin >= 0 else -1
        if end >= 0:
            inner = whole[begin + len(_BEGIN) : end]
            made = Prompt(whole, (begin, end + len(_END)), inner)
            if whole.count(_BEGIN) == 1 and _BEGIN not in made.text:
                return made
            break
    raise ambiguous_adapter(
        place,
        f"holds {ARGUMENTS} several times, or without an end in the same line.",
        f"Send {_BEGIN}{{...}}{_END} once and in one line.",
    )


def tags_of(text: str, place: str) -> Iterator[Tag]:
    """The tags that sd-cli loads LoRAs for; those without a number it takes out and forgets.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS for a strength that is not finite, or hexadecimal.
    """
    at = text.find(_TAG)
    end = -1
    while at >= 0:
        begin = at + len(_TAG)
        end = end if end >= begin else text.find(">", begin)
        if end < 0:
            return
        colon = text.find(":", begin, end)
        if colon > begin and colon + 1 < end:
            yield from _tag(text[begin:colon], begin, text[colon + 1 : end], place)
            at = text.find(_TAG, end)
        else:
            at = text.find(_TAG, begin)


def _tag(name: str, begin: int, number: str, place: str) -> Iterator[Tag]:
    if _OTHER_NUMBER.match(number):
        raise ambiguous_adapter(
            place, "is no finite decimal number.", "Write <lora:name:strength>."
        )
    found = _NUMBER.match(number)
    if found is None:
        return
    high_noise = name.startswith(_NOISE)
    plain = name.removeprefix(_NOISE)
    span = (begin + len(name) - len(plain), begin + len(name))
    yield Tag(plain, span, strength_in_text(found[1], place), high_noise)
