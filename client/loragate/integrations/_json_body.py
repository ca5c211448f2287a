"""Finds the adapters that the JSON body of a request names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

FIELDS = frozenset(
    {
        "lora",
        "loras",
        "lora_name",
        "lora_path",
        "lora_paths",
        "lora_local_path",
        "lora_url",
        "lora_urls",
        "lora_weights",
        "lora_model",
        "extra_lora",
        "adapter",
        "adapters",
        "adapter_id",
    }
)
"""Names of fields that hold adapters in the APIs of image servers, at any depth of a body."""

_PLACES = ("path", "local_path", "lora_path", "lora_local_path", "url", "uri", "lora_url")
_NAMES = ("name", "lora_name", "adapter", "id", "model", "lora_name_or_path", "adapter_id")
_SCALES = ("scale", "strength", "weight", "lora_scale", "lora_strength", "lora_weight")
_TEXT_SCALES = ("text_encoder_scale", "text_encoder_strength", "strength_clip")
# Around a bare name, "strength" is mostly that of img2img.
_SCALES_AROUND = ("lora_scale", "lora_strength", "lora_weight")


class InvalidBodyError(ValueError):
    """A body that a later reader could read differently, or that cannot be read."""


def parse(body: bytes) -> Any:
    """Reads a body strictly: an ambiguity here would be one LoRA audited and another loaded.

    Raises:
        InvalidBodyError: not UTF-8, not JSON, a key occurs twice, or numbers that JSON lacks.
    """
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_without_doubles, parse_constant=_no_constant
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidBodyError(f"The body is not sound JSON: {error}.") from error


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidBodyError(f"The key {key!r} occurs twice in one object.")
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    raise InvalidBodyError(f"{name} is no number in JSON.")


NamedAdapter: TypeAlias = tuple[str, float | None, float | None]
"""Place, strength and text-encoder strength of an adapter; None where the body says nothing."""


def named_adapters(body: Any) -> Iterator[NamedAdapter]:
    """What the fields of `FIELDS` hold, at any depth.

    Raises:
        InvalidBodyError: such a field holds what cannot be understood as an adapter.
    """
    if isinstance(body, list):
        for item in body:
            yield from named_adapters(item)
    elif isinstance(body, dict):
        for key, value in body.items():
            if key.lower() in FIELDS:
                yield from _adapters(value, key, _number(body, _SCALES_AROUND))
            if isinstance(value, dict | list):
                yield from named_adapters(value)


def at_paths(body: Any, paths: Sequence[str]) -> Iterator[NamedAdapter]:
    """As `named_adapters`, for dotted paths; `*` stands for every item of a list.

    A path that does not exist in the body names no adapter.

    Raises:
        InvalidBodyError: a path leads to what cannot be understood as an adapter.
    """
    for path in paths:
        for value, around in _reach(body, path.split("."), {}):
            scales = _SCALES if path.rpartition(".")[2] in _PLACES else _SCALES_AROUND
            yield from _adapters(value, path, _number(around, scales))


def _reach(value: Any, steps: list[str], around: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What the steps lead to, each with the object in which it lies."""
    if not steps:
        yield value, around
    elif steps[0] == "*" and isinstance(value, list):
        for item in value:
            yield from _reach(item, steps[1:], around)
    elif isinstance(value, dict) and steps[0] in value:
        yield from _reach(value[steps[0]], steps[1:], value)


def _adapters(value: Any, field: str, scale: float | None) -> Iterator[NamedAdapter]:
    """The adapters in the value of one field; the scale beside it holds where it has none."""
    if value is None or value == "":
        return
    if isinstance(value, str):
        yield value, scale, None
    elif isinstance(value, list):
        yield from _added_up(found for item in value for found in _adapters(item, field, scale))
    elif isinstance(value, dict):
        # All of several places: which of them the server prefers is not known here.
        places = [value[key] for key in _PLACES if value.get(key)]
        places = places or [value[key] for key in _NAMES if value.get(key)][:1]
        if not places or not all(isinstance(place, str) for place in places):
            raise InvalidBodyError(f"The field {field!r} holds an object that names no adapter.")
        own = _number(value, _SCALES)
        for place in places:
            yield place, scale if own is None else own, _number(value, _TEXT_SCALES)
    else:
        raise InvalidBodyError(f"The field {field!r} holds {type(value).__name__}, not an adapter.")


def _added_up(found: Iterable[NamedAdapter]) -> Iterator[NamedAdapter]:
    """The adapters of one list; one that it names several times is applied as often."""
    for (place, scale, text_scale), times in Counter(found).items():
        if times == 1:
            yield place, scale, text_scale
        else:
            own = 1.0 if scale is None else scale
            yield place, own * times, None if text_scale is None else text_scale * times


def _number(fields: dict[str, Any], names: Sequence[str]) -> float | None:
    """The number under the first of the names that is there.

    Raises:
        InvalidBodyError: it is not a number.
    """
    for name in names:
        value = fields.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise InvalidBodyError(f"The field {name!r} is not a number.")
            return float(value)
    return None
