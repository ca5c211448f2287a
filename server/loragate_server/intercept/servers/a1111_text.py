"""What A1111 and its relatives make of a text before they look for tags in it."""

from __future__ import annotations

import re

from loragate_server.intercept.reading.joining import may_become_a_tag
from loragate_server.intercept.reading.tags import tags_in, without_tags
from loragate_server.intercept.refusals import ambiguous_adapter, unnamed

PICTURES = frozenset({"init_images", "mask", "image", "images", "input_image", "imagelist"})
"""Names of members that hold pictures, in which any letters may stand side by side."""

_INFOTEXT = "infotext"
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_NETWORK_FIELD = re.compile(r"\b(Hypernet|AddNet Model \d+)\s*:")
_BASE_FIELD = re.compile(
    r"(?:^|[,\n])\s*(Model|Model hash|Refiner|Hires checkpoint|Unet|TE|VAE/TE|Module \d+)\s*:"
)
_WILDCARD = re.compile(r"__[^\s_][^\s]*?__")
_STYLE = re.compile(r"<style:[^>]", re.IGNORECASE)
_EXTRA = re.compile(r"<sd_cpp_extra_args>(.*?)</sd_cpp_extra_args>", re.DOTALL)
_MAY_LOAD = re.compile(r"lora|<|\\", re.IGNORECASE)


def decoded_infotext(text: str, name: str) -> str | None:
    """What the quoted values of an infotext say, which servers decode as JSON; None if the same.

    Decoded is more than a server decodes, as no text becomes harmless by that.
    """
    if name.casefold() != _INFOTEXT or "\\u" not in text:
        return None
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)


def refuse_named_base(text: str, place: str, name: str) -> None:
    """Refuses an infotext that switches the base model, which it names by hashes, too.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS.
    """
    if name.casefold() == _INFOTEXT and (field := _BASE_FIELD.search(text)):
        raise ambiguous_adapter(
            place, f"says under {field[1]} which model is used.", "Leave that out of the infotext."
        )


def refuse_undecidable(
    text: str, place: str, name: str, *, wildcards: bool = False, styles: bool = False
) -> None:
    """Refuses a text whose tags come from elsewhere, or come about when choices are drawn.

    Args:
        text: the text.
        place: where it stands, for people.
        name: of the member that holds it.
        wildcards: lets wildcards pass.
        styles: lets styles pass.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED or ADAPTER_AMBIGUOUS.
    """
    if name.casefold() == _INFOTEXT and (field := _NETWORK_FIELD.search(text)):
        raise unnamed(place, f"loads what {field[1]} names.", "Leave it out of the infotext.")
    wild = not wildcards and "__" in text and name.casefold() not in PICTURES
    if wild and _WILDCARD.search(text):
        raise unnamed(
            place,
            "holds a wildcard, for which the server may put in tags.",
            "Write its text out, or set allow_wildcards.",
        )
    if "<" not in text:
        return
    if not styles and _STYLE.search(text):
        raise unnamed(
            place,
            "names a style, whose text on the server may hold tags.",
            "Write its text out, or set allow_styles.",
        )
    if may_become_a_tag(without_tags(text)):
        raise ambiguous_adapter(
            place, "may become a tag when its variants are drawn.", "Write the tag out."
        )
    _refuse_extra_arguments(text, place)


def _refuse_extra_arguments(text: str, place: str) -> None:
    """stable-diffusion.cpp reads further parameters from the prompt, and takes them out of it."""
    blocks = _EXTRA.findall(text)
    if not blocks:
        return
    left = _EXTRA.sub("", text)
    if any(map(_MAY_LOAD.search, blocks)) or len(list(tags_in(left, place))) != len(
        list(tags_in(text, place))
    ):
        raise unnamed(
            place,
            "holds extra arguments that may name a LoRA.",
            "Write <lora:name:strength>, and extra arguments without LoRAs.",
        )
