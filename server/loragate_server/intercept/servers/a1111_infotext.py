"""Infotexts, as A1111 and Forge read them: a prompt, and in the last line fields with values."""

from __future__ import annotations

import re
from collections.abc import Iterator

from loragate_server.intercept.refusals import ambiguous_adapter, unnamed

_INFOTEXT = "infotext"
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NETWORK = re.compile(r"\b(Hypernet|AddNet Model \d+)\s*:")
_FIELD = re.compile(r'(?<![\w \-/])[ \-/]*(\w[\w \-/]+):\s*(?:"(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""As the servers look for them, but each beginning is tried once."""
_BASE = re.compile(
    r"Model|Model hash|Refiner|Unet|TE|Hires checkpoint|(Hires )?(VAE/TE|Module .*)|VAE", re.DOTALL
)
"""Fields that name a model, or parts of one. Forge takes VAE for any of its modules."""
_MENDED = tuple(f"Clip skip: {number}, " for number in range(9))
"""What Forge takes out of the texts of one site, so that what stood apart stands together."""


def is_infotext(name: str) -> bool:
    """Whether a member of this name holds an infotext."""
    return len(name) == len(_INFOTEXT) and name.casefold() == _INFOTEXT


def further_readings(text: str) -> tuple[str, ...]:
    """What servers make of an infotext before they look for tags and fields in it.

    Decoded is more than a server decodes, as no text becomes harmless by that.
    """
    mended = "\n".join(map(_mended, text.split("\n")))
    made = dict.fromkeys((_decoded(text), mended, _decoded(mended)))
    return tuple(one for one in made if one != text)


def _decoded(text: str) -> str:
    """The text with its quoted values as JSON has them."""
    if "\\u" not in text:
        return text
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def _mended(line: str) -> str:
    if "Civitai" in line and "FLUX" in line:
        for part in _MENDED:
            line = line.replace(part, "")
    return line


def refuse_named_base(text: str, place: str) -> None:
    """Refuses an infotext that switches the base model, which it names by hashes, too.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS.
    """
    for name in fields_of(text):
        if _BASE.fullmatch(name):
            raise ambiguous_adapter(
                place, f"says under {name} which model is used.", "Leave that out of the infotext."
            )


def refuse_networks(text: str, place: str) -> None:
    """Refuses an infotext that names networks in fields of their own.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED.
    """
    if field := _NETWORK.search(text):
        raise unnamed(place, f"loads what {field[1]} names.", "Leave it out of the infotext.")


def fields_of(text: str) -> Iterator[str]:
    """The names of the fields of any line, as the servers find them in the last one."""
    for line in text.split("\n"):
        for match in _FIELD.finditer(line):
            yield match[1].rstrip()
