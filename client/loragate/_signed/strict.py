"""JSON that means one thing: no name twice, no number that is none."""

from __future__ import annotations

import json
from typing import Any, NoReturn


def strict_json(data: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        ValueError: it is something else, or could be read in two ways.
    """
    try:
        value = json.loads(
            data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_number
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError("It is no JSON.") from None
    if not isinstance(value, dict):
        raise ValueError("It is no JSON object.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("It has a name twice.")
    return made


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"It holds {text}, which is no number.")
