"""What A1111 and its relatives make of a text before they look for tags in it."""

from __future__ import annotations

import re

from loragate_server.intercept.reading.joining import may_become_a_tag
from loragate_server.intercept.reading.tags import tags_in, without_tags
from loragate_server.intercept.refusals import ambiguous_adapter, unnamed
from loragate_server.intercept.servers.a1111_infotext import is_infotext, refuse_networks

PICTURES = frozenset({"init_images", "mask", "image", "images", "input_image", "imagelist"})
"""Names of members that hold pictures, in which any letters may stand side by side."""

_PICTURE = re.compile(
    r"(data:(image|video|application/octet-stream)[^,]{0,100};base64,)?"
    # How PNG, JPEG, GIF, BMP, WebP, AVIF and TIFF begin in base64.
    r"(iVBORw0KGg|/9j/|_9j_|R0lGOD|Qk|UklGR|AAAA|SUkq|TU0A)[A-Za-z0-9+/_=\s-]{40,}"
)
_PROMPTS = re.compile(r"prompt|text|negative|style|wildcard", re.IGNORECASE)
"""Members that are read as prompts, however they begin."""
_MOST_LOOKED_AT = 256
"""Longer names may hold such a word; they are not looked through, as they may stand over many."""

_MAX_NAME_CHARS = 32
"""Longer names are none of these; a long one may stand over many texts."""
INSERTED = re.compile(r"\[prompt\]", re.IGNORECASE)
"""In the place of which ADetailer puts the main prompt; SD.Next reads small letters, too."""
_WILDCARD = re.compile(r"__[^\s_][^\s]*?__")
_ANY_WILDCARD = re.compile(r"__(.*?)__", re.DOTALL)
"""SD.Next takes whatever stands between, without the blanks around it, for a file's name."""
_MOST_OF_A_NAME = 255
_EDGE = re.compile(r"[{}|:]\s*_|_\s*[{}|:#]")
_EDGE_OF_INSERTED = re.compile(r"\[prompt\]_|_\[prompt\]", re.IGNORECASE)
_FILE = re.compile(
    r"[^<>{}|\n]*\.(safetensors|ckpt|pt|pth|bin|gguf)( \[[0-9a-f]*\])?", re.IGNORECASE
)
_NAMES_FILE = re.compile(
    r"(checkpoint|model|vae|unet|upscaler|modules?|refiner)(_?name|_?[0-9])?$", re.IGNORECASE
)
_WHOLE_OR_MARK = re.compile(r"<\w+:[^>]+>|[{}#\n]")
_STYLE = re.compile(r"<style:[^>]", re.IGNORECASE)
_EXTRA, _EXTRA_END = "<sd_cpp_extra_args>", "</sd_cpp_extra_args>"
_MAY_LOAD = re.compile(r"lora|<|\\", re.IGNORECASE)


def refuse_undecidable(text: str, place: str, name: str, *, wildcards: bool, styles: bool) -> None:
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
    if is_infotext(name):
        refuse_networks(text, place)
    if not wildcards and "_" in text and _has_wildcard(text, name):
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
    _refuse_extra_arguments(text, place)
    if may_become_a_tag(without_tags(text), again=True):
        raise ambiguous_adapter(
            place,
            "may become a tag when its variants are drawn, or the tags in it are taken out.",
            "Write each tag out, and for itself.",
        )


def refuse_insertion(text: str, place: str, left_open: str, *, wildcards: bool) -> None:
    """What is put in the place of `[PROMPT]` may complete a tag, or a wildcard.

    Args:
        text: that holds the mark.
        place: where the text stands, for people.
        left_open: what the main prompts hold of tags and wildcards that are not whole.
        wildcards: lets wildcards pass.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS or ADAPTER_UNNAMED.
    """
    in_tag = any(map(INSERTED.search, (tag.name for tag in tags_in(text, place))))
    if in_tag or "<" in without_tags(text) or "<" in left_open:
        raise ambiguous_adapter(
            place, "may become a tag when [PROMPT] is replaced.", "Write the prompt out."
        )
    if not wildcards and (_EDGE_OF_INSERTED.search(text) or ("__" in text and "_" in left_open)):
        raise unnamed(
            place, "may become a wildcard when [PROMPT] is replaced.", "Write the prompt out."
        )


def begins_for_all(text: str) -> frozenset[int]:
    """Where the tags begin that no server leaves out: in no choice, no comment and no other tag."""
    depth, line = 0, False
    found = []
    for match in _WHOLE_OR_MARK.finditer(text, 0, text.rfind(">") + 1):
        mark = match[0]
        if mark == "{":
            depth += 1
        elif mark == "}":
            depth = max(0, depth - 1)
        elif mark in "#\n":
            line = mark == "#"
        elif "{" in mark or "#" in mark:
            break  # what is drawn in a tag may end it elsewhere
        elif not depth and not line:
            found.append(match.start())
    return frozenset(found)


def _is_picture(text: str, name: str) -> bool:
    """Whether a member holds a picture: by its name, or by its letters where it is no prompt."""
    if _is_one(name, PICTURES):
        return True
    if len(name) > _MOST_LOOKED_AT or not _PICTURE.fullmatch(text):
        return False
    return _PROMPTS.search(name) is None


def _has_wildcard(text: str, name: str) -> bool:
    if _is_picture(text, name):
        return False
    if len(name) <= _MOST_LOOKED_AT and _PROMPTS.search(name) is None:
        is_file = _FILE.fullmatch(text) or _NAMES_FILE.search(name)
        return not is_file and _WILDCARD.search(text) is not None
    if ("{" in text or "#" in text) and text.count("__") + len(_EDGE.findall(text)) > 1:
        return True  # of what is drawn, a wildcard may come about
    return _WILDCARD.search(text) is not None or any(map(_may_be_file, _ANY_WILDCARD.findall(text)))


def _may_be_file(name: str) -> bool:
    name = name.strip()
    return 0 < len(name) <= _MOST_OF_A_NAME and name.isprintable()


def _is_one(name: str, names: frozenset[str]) -> bool:
    return len(name) <= _MAX_NAME_CHARS and name.casefold() in names


def _refuse_extra_arguments(text: str, place: str) -> None:
    """Servers around stable-diffusion.cpp read parameters from the prompt, and take them out."""
    left, blocks = _without_extra_arguments(text)
    if not blocks:
        return
    if any(map(_MAY_LOAD.search, blocks)) or len(list(tags_in(left, place))) != len(
        list(tags_in(text, place))
    ):
        raise unnamed(
            place,
            "holds extra arguments that may name a LoRA.",
            "Write <lora:name:strength>, and extra arguments without LoRAs.",
        )


def _without_extra_arguments(text: str) -> tuple[str, list[str]]:
    """The text without its blocks of further parameters, and these."""
    kept, blocks, at = [], [], 0
    while (begin := text.find(_EXTRA, at)) >= 0:
        inner = begin + len(_EXTRA)
        end = text.find(_EXTRA_END, inner)
        if end < 0:
            break
        kept.append(text[at:begin])
        blocks.append(text[inner:end])
        at = end + len(_EXTRA_END)
    return "".join([*kept, text[at:]]), blocks
