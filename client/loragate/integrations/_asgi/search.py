"""Looks through a request for fields that hold adapters, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from loragate.integrations._asgi.names import Meaning, Names, stem
from loragate.integrations._asgi.values import (
    FormText,
    InvalidBodyError,
    Named,
    Upload,
    adapters,
    has_tag,
    json_in,
    names_weights_of_lora,
    number,
)

_DEEPEST = 100
_MODEL_PARTS = ("unet", "transformer", "text_encoder", "clip", "model", "down", "mid", "up")


def search(body: Any, names: Names, depth: int = 0) -> Iterator[Named]:
    """The adapters that a body names.

    Raises:
        InvalidBodyError: a field holds what cannot be understood as an adapter.
    """
    if depth > _DEEPEST:
        raise InvalidBodyError("The body is nested too deeply.")
    if isinstance(body, list):
        for item in body:
            yield from _plain(item, "an item of a list", names, depth)
    elif isinstance(body, dict):
        for name, value in body.items():
            yield from _in_field(body, name, value, names, depth)


def _in_field(
    body: dict[str, Any], name: str, value: Any, names: Names, depth: int
) -> Iterator[Named]:
    meaning = names.meaning(name)
    if meaning is Meaning.ADAPTER and not _is_number_of_weights(name, value):
        yield from _with_scales(body, name, value, names)
        if isinstance(value, dict | list):
            yield from search(value, names, depth + 1)
    elif meaning is Meaning.STRENGTH:
        yield from _strength(name, value)
    elif name.lower() not in names.but_not:
        yield from _plain(value, name, names, depth)


def _plain(value: Any, name: str, names: Names, depth: int) -> Iterator[Named]:
    """What is in a value of which the name says nothing."""
    if names_weights_of_lora(value):
        yield from adapters(value, name, None)
    elif isinstance(value, str):
        if has_tag(value):
            raise InvalidBodyError(
                f"The field {name!r} names a LoRA by a tag, and which file that is, only the "
                "application knows. Give the route an extractor of its own, or leave the field "
                "out by but_not where tags mean nothing."
            )
        yield from search(json_in(value), names, depth + 1)
    else:
        yield from search(value, names, depth + 1)


def _strength(name: str, value: Any) -> Iterator[Named]:
    """Adapters that are named where strengths are, as the keys of an object."""
    if isinstance(value, str) and number(FormText(value)) is None:
        inner = json_in(value)
        # lora_weight may be either.
        yield from adapters(value, name, None) if inner is None else _strength(name, inner)
    elif isinstance(value, dict):
        found = {key: one for key, one in value.items() if not key.startswith(_MODEL_PARTS)}
        if found:
            yield from adapters(found, name, None)
    elif isinstance(value, Upload):
        yield from adapters(value, name, None)
    elif isinstance(value, list):
        for item in value:
            yield from _strength(name, item)


def _with_scales(body: dict[str, Any], name: str, value: Any, names: Names) -> Iterator[Named]:
    """The adapters of a field, as strong as a field beside it says."""
    scale = _scale_beside(body, name, names)
    if not isinstance(scale, list):
        yield from adapters(value, name, scale)
        return
    inner = json_in(value) if isinstance(value, str) else value
    items = inner if isinstance(inner, list) else [value]
    if len(items) != len(scale):
        raise InvalidBodyError(
            f"The field {name!r} holds {len(items)} adapters, and there are {len(scale)} strengths."
        )
    for item, one in zip(items, scale, strict=True):
        yield from adapters(item, name, one)


def _scale_beside(body: dict[str, Any], name: str, names: Names) -> float | list[float] | None:
    """The strength that belongs to a field, by the words that both names share.

    Raises:
        InvalidBodyError: there are several, or it is no number.
    """
    own = stem(name)
    beside = {
        other: stem(other)
        for other, value in body.items()
        if value is not None
        and names.meaning(other) is Meaning.STRENGTH
        and not isinstance(value, dict)
        and (stem(other) <= own or not own)
    }
    if not beside:
        return None
    closest = max(map(len, beside.values()))
    found = {
        other: _number(other, body[other]) for other, one in beside.items() if len(one) == closest
    }
    if len({repr(one) for one in found.values()}) > 1:
        raise InvalidBodyError(
            f"The field {name!r} has several strengths: {', '.join(found)}. Send one."
        )
    return next(iter(found.values()))


def _number(name: str, value: Any) -> float | list[float]:
    if isinstance(value, str) and isinstance(inner := json_in(value), list):
        value = [FormText(one) if isinstance(one, str) else one for one in inner]
    items = value if isinstance(value, list) else [value]
    numbers = [one for item in items if (one := number(item)) is not None]
    if len(numbers) != len(items):
        raise InvalidBodyError(f"The field {name!r} is not a number.")
    return numbers if isinstance(value, list) else numbers[0]


def _is_number_of_weights(name: str, value: Any) -> bool:
    """Whether a field called weights holds numbers, as of prompts that are mixed."""
    items = value if isinstance(value, list) else [value]
    is_weights = name.lower().rpartition("_")[2] in ("weight", "weights")
    return is_weights and all(number(item) is not None for item in items)
