"""Strengths as image servers take them: finite numbers, in text or not."""

from __future__ import annotations

import math
import re
from typing import Any

from loragate_server.intercept.refusals import ambiguous_adapter

# What Python's float() takes beyond this (underscores, foreign digits, "nan") no client needs.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_MAX_CHARS = 64


def strength(value: Any, place: str) -> float:
    """A strength from JSON: a number, or a number in a string.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS for anything else, and for what is not finite.
    """
    if isinstance(value, str):
        return strength_in_text(value, place)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, place)
    raise _no_number(place)


def strength_in_text(text: str, place: str) -> float:
    """A strength from a text.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS when it is no plain finite number.
    """
    text = text.strip(" ")
    if len(text) > _MAX_CHARS or not _NUMBER.fullmatch(text):
        raise _no_number(place)
    return _finite(float(text), place)


def _finite(value: float, place: str) -> float:
    try:
        number = float(value)
    except OverflowError as error:
        raise _no_number(place) from error
    if not math.isfinite(number):
        raise _no_number(place)
    return number


def _no_number(place: str) -> Exception:
    return ambiguous_adapter(place, "is no finite number.", "Send the strength as a number.")
