"""LoRA tags in prompts, `<lora:NAME:...>`: found wherever any server would find one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.references import WEIGHT_SUFFIXES
from loragate_server.intercept.reading.strengths import strength_in_text
from loragate_server.intercept.refusals import ambiguous_adapter, unnamed

# Some servers look for the outermost `<`, some for `<lora:` alone, so each beginning counts.
_BEGIN = re.compile(r"<(lora|lyco|loractl|hypernet):", re.IGNORECASE)
_WHOLE = re.compile(r"<(lora|lyco|loractl|hypernet|style):", re.IGNORECASE)
_DENOISER_PARTS = ("in", "mid", "out")
"""Parts of the denoiser that SD.Next gives strengths of their own."""
_DYNAMIC = re.compile(r"[{}|$#<\x00-\x1f]")


@dataclass(frozen=True)
class Tag:
    """A tag in a prompt.

    Attributes:
        kind: "lora" or "lyco", in the letters of the prompt.
        name: of the LoRA, as written.
        span: where the name stands in the prompt.
        numbers: the arguments without a name; at most two.
        named: the arguments with a name: `te` and `unet`.
        written: all arguments behind the name, as written.
    """

    kind: str
    name: str
    span: tuple[int, int]
    numbers: tuple[float, ...]
    named: Mapping[str, float]
    written: tuple[str, ...] = ()

    @property
    def begin(self) -> int:
        """Where it begins in the prompt."""
        return self.span[0] - len(f"<{self.kind}:")

    @property
    def everywhere(self) -> bool:
        """Whether every server that knows tags takes this one for a LoRA.

        None reads other letters than "lora" everywhere, LocalAI needs a number, and only some
        find more than a file's bare name.
        """
        bare = "/" not in self.name and not self.name.lower().endswith(WEIGHT_SUFFIXES)
        return self.kind == "lora" and bool(self.numbers) and not self.named and bare

    def in_web_uis(self, default: float) -> tuple[Strength, ...]:
        """The strengths in A1111, Forge and SD.Next.

        Args:
            default: what SD.Next takes for a tag without a number; the others take 1.
        """
        given = self.numbers[:1] or (1.0, default)
        readings = []
        for first in given:
            text_encoder = self.named.get("te", first)
            # A1111 takes the named te for the denoiser as well, unless that has its own number.
            second = self.numbers[1] if len(self.numbers) > 1 else text_encoder
            readings.append(Strength(self.named.get("unet", second), text_encoder))
            # SD.Next does not look at a second number.
            readings.append(Strength(self.named.get("unet", text_encoder), text_encoder))
            # It gives te to the transformers of Flux and SD3, too, whatever unet says, and with
            # diffusers' method to every layer.
            readings.append(Strength(text_encoder, text_encoder))
        # Relatives of these servers look at the first number only.
        readings += [Strength(one, one) for one in self.numbers[:1]]
        return tuple(dict.fromkeys(readings))


def tags_in(text: str, place: str) -> Iterator[Tag]:
    """The LoRA tags of a prompt.

    Args:
        text: the prompt.
        place: where it stands, for people.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED or ADAPTER_AMBIGUOUS for a tag that cannot be read.
    """
    if "<" not in text:
        return
    for match in _BEGIN.finditer(text):
        end = text.find(">", match.end())
        if end < 0:
            return  # nor does any further one end
        kind = match[1].casefold()
        if kind == "hypernet":
            raise unnamed(place, "loads a hypernetwork.", "Leave the tag out.")
        if kind == "loractl":
            raise ambiguous_adapter(
                place, "changes the strength of a LoRA while it draws.", "Write <lora:name:1>."
            )
        yield _tag(match[1], text[match.end() : end], match.end(), place)


def without_tags(text: str) -> str:
    """The prompt with ">" in the place of each whole tag, of which nothing else can be made."""
    kept, at = [], 0
    for match in _WHOLE.finditer(text):
        if match.start() < at:
            continue
        end = text.find(">", match.end())
        if end < 0:
            break
        kept.append(text[at : match.start()])
        at = end
    return "".join([*kept, text[at:]])


def _tag(kind: str, arguments: str, begin: int, place: str) -> Tag:
    items = arguments.split(":")
    name = items[0]
    if "=" in name or _DYNAMIC.search(name):
        raise unnamed(place, "has a tag without a plain name.", "Write <lora:name:strength>.")
    named = [item.partition("=")[::2] for item in items[1:] if "=" in item]
    positional = [item for item in items[1:] if "=" not in item]
    given = dict(named)
    known = {"te", "unet", *_DENOISER_PARTS}
    if len(given) != len(named) or not set(given) <= known or len(positional) > 2:
        raise _not_measured(place)
    numbers = tuple(strength_in_text(item, place) for item in positional)
    strengths = {part: strength_in_text(item, place) for part, item in given.items()}
    parts = [strengths.pop(part) for part in _DENOISER_PARTS if part in strengths]
    if parts:
        # What some parts of the denoiser do with a LoRA whose other parts are left out, an audit
        # of the whole cannot say.
        whole = strengths.get("unet", strengths.get("te", (*numbers, None)[0]))
        if set(parts) != {whole} or len(numbers) > 1:
            raise _not_measured(place)
    return Tag(kind, name, (begin, begin + len(name)), numbers, strengths, tuple(items[1:]))


def _not_measured(place: str) -> Exception:
    return ambiguous_adapter(
        place,
        "has a tag with arguments that an audit cannot take in.",
        "Write <lora:name:strength>, without dyn or strengths of blocks.",
    )
