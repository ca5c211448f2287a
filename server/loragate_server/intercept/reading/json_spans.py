"""Replaces strings in a JSON text and leaves every other character where it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from loragate_server.intercept.refusals import Location

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def replace_strings(text: str, values: Mapping[Location, str]) -> str:
    """The text with the values at some locations replaced by strings.

    Args:
        text: valid JSON without duplicate names.
        values: location to new value.

    Raises:
        KeyError: a location does not exist.
    """
    spans = sorted((locate(text, location), value) for location, value in values.items())
    pieces, position = [], 0
    for (begin, end), value in spans:
        pieces += [text[position:begin], json.dumps(value)]
        position = end
    return "".join([*pieces, text[position:]])


def locate(text: str, location: Location) -> tuple[int, int]:
    """Where the value at a location stands in the text.

    Raises:
        KeyError: the location does not exist.
    """
    begin = _skip(text, 0)
    for step in location:
        begin = _member(text, begin, step)
    return begin, _DECODER.raw_decode(text, begin)[1]


def _member(text: str, opening: int, step: str | int) -> int:
    """Where the value of a member of an object, or an item of a list, begins."""
    position = _skip(text, opening + 1)
    is_object = text[opening] == "{"
    number = 0
    while text[position] not in "]}":
        name: str | int = number
        if is_object:
            name, position = _DECODER.raw_decode(text, position)
            position = _skip(text, _skip(text, position) + 1)
        if name == step and isinstance(step, str) == is_object:
            return position
        position = _skip(text, _DECODER.raw_decode(text, position)[1])
        if text[position] == ",":
            position = _skip(text, position + 1)
        number += 1
    raise KeyError(step)


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
