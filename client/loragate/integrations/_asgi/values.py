"""What a value says that stands where an adapter is named."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from loragate.integrations._asgi.names import last_word, speaks_of_lora

PLACES = {"path", "url", "uri", "file", "filename", "source", "src", "href", "weights"}
NAMES = ("name", "lora_name", "adapter", "id", "model", "lora_name_or_path", "adapter_id")
SCALES = ("scale", "strength", "weight", "lora_scale", "lora_strength", "lora_weight")
TEXT_SCALES = ("text_encoder_scale", "text_encoder_strength", "strength_clip")
# Around a bare name, "strength" is mostly that of img2img.
SCALES_AROUND = ("lora_scale", "lora_strength", "lora_weight")
_SUFFIX = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|bin|gguf|pkl)(?=$|[?#])", re.IGNORECASE)
_TAG = re.compile(r"<\s*(?:lora|lyco|locon)\s*[:|]", re.IGNORECASE)
_NONE = {"none", "null"}


class InvalidBodyError(ValueError):
    """A body that a later reader could read differently, or that cannot be read."""


@dataclass(frozen=True)
class Named:
    """One adapter that a request names, or brings along.

    Attributes:
        place: where it is; empty for bytes.
        scale, text_scale: how strong; None where the request does not say.
        data: the bytes of an uploaded file.
    """

    place: str
    scale: float | None = None
    text_scale: float | None = None
    data: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Upload:
    """A file in a form."""

    file_name: str
    data: bytes = field(repr=False)


def is_weights(text: str) -> bool:
    """Whether a text is the place of a file of weights."""
    return _SUFFIX.search(text) is not None


def has_tag(text: str) -> bool:
    """Whether a text names a LoRA in the way of prompts."""
    return _TAG.search(text) is not None


def adapters(value: Any, name: str, scale: float | None) -> Iterator[Named]:
    """The adapters in the value of one field; the scale beside it holds where it has none.

    Raises:
        InvalidBodyError: it cannot be understood as adapters.
    """
    if value is None or value == "" or isinstance(value, bool):
        return
    if isinstance(value, str):
        inner = json_in(value)
        if inner is not None:
            yield from adapters(inner, name, scale)
        elif value.strip().lower() not in _NONE:
            yield Named(value, scale)
    elif isinstance(value, Upload):
        yield Named("", scale, data=value.data)
    elif isinstance(value, list):
        yield from added_up(found for item in value for found in adapters(item, name, scale))
    elif isinstance(value, dict):
        yield from _in_object(value, name, scale)
    else:
        raise InvalidBodyError(
            f"The field {name!r} holds {type(value).__name__}, not an adapter. Send the place of "
            "the adapter; a field that holds none can be left out by but_not."
        )


def _in_object(value: dict[str, Any], name: str, scale: float | None) -> Iterator[Named]:
    if all(key.isdigit() for key in value):
        # As forms number the items of a list.
        yield from adapters(list(value.values()), name, scale)
        return
    if all(number(one) is not None for one in value.values()):
        # Places, each with its strength.
        for place, strength in value.items():
            if place not in SCALES:
                yield Named(place, number(strength))
        if not set(value) <= set(SCALES):
            return
    # All of several places: which of them the server prefers is not known here.
    places = list(_places(value, deep=True))
    if not places:
        places = [value[key] for key in NAMES if value.get(key)][:1]
    if not places or not all(isinstance(place, str | Upload) for place in places):
        raise InvalidBodyError(f"The field {name!r} holds an object that names no adapter.")
    own = first_number(value, SCALES)
    for place in places:
        for one in adapters(place, name, scale if own is None else own):
            yield Named(one.place, one.scale, first_number(value, TEXT_SCALES), one.data)


def _places(value: dict[str, Any], *, deep: bool) -> Iterator[Any]:
    """What stands under the names of places, also in objects inside."""
    for key, one in value.items():
        is_place = last_word(key) in PLACES
        if is_place and one and not isinstance(one, dict):
            yield one
        elif isinstance(one, dict) and deep:
            yield from _places(one, deep=True)


def added_up(found: Iterable[Named]) -> Iterator[Named]:
    """The adapters of one list; one that it names several times is applied as often."""
    for one, times in Counter(found).items():
        if times == 1:
            yield one
        else:
            own = 1.0 if one.scale is None else one.scale
            text = None if one.text_scale is None else one.text_scale * times
            yield Named(one.place, own * times, text, one.data)


def first_number(fields: dict[str, Any], names: Sequence[str]) -> float | None:
    """The number under the first of the names that is there.

    Raises:
        InvalidBodyError: it is not a number.
    """
    for name in names:
        value = fields.get(name)
        if value is not None:
            found = number(value)
            if found is None:
                raise InvalidBodyError(f"The field {name!r} is not a number.")
            return found
    return None


class FormText(str):
    """A text of a form or a query, where numbers are texts too."""


def number(value: Any) -> float | None:
    """A value as a number; None where it is none."""
    if isinstance(value, FormText):
        try:
            found = float(value)
        except ValueError:
            return None
        return found if math.isfinite(found) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)


def json_in(text: str) -> Any:
    """JSON that is sent as a text; None for any other text.

    Raises:
        InvalidBodyError: it can be read in two ways.
    """
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text, object_pairs_hook=without_doubles, parse_constant=without_constants)
    except (json.JSONDecodeError, RecursionError):
        return None


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        InvalidBodyError: it has a key twice.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidBodyError(f"The key {key!r} occurs twice in one object.")
        found[key] = value
    return found


def without_constants(name: str) -> float:
    """What stands for a number that JSON lacks.

    Raises:
        InvalidBodyError: always.
    """
    raise InvalidBodyError(f"{name} is no number in JSON.")


def names_weights_of_lora(value: Any) -> bool:
    """Whether a value, by itself, is the place of a LoRA, or a file of weights that is sent."""
    if isinstance(value, Upload):
        return is_weights(value.file_name)
    return isinstance(value, str) and is_weights(value) and speaks_of_lora(value)
