"""The adapters at dotted paths of a JSON body."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from loragate.integrations._asgi.names import last_word
from loragate.integrations._asgi.values import (
    PLACES,
    SCALES,
    SCALES_AROUND,
    Named,
    adapters,
    first_number,
)


def at_paths(body: Any, paths: Sequence[str]) -> Iterator[Named]:
    """What stands at the paths; `*` is every item of a list.

    A path that does not exist in the body names no adapter.

    Raises:
        InvalidBodyError: a path leads to what cannot be understood as an adapter.
    """
    for path in paths:
        for value, around in _reach(body, path.split("."), {}):
            is_place = last_word(path.rpartition(".")[2]) in PLACES
            scales = SCALES if is_place else SCALES_AROUND
            yield from adapters(value, path, first_number(around, scales))


def _reach(value: Any, steps: list[str], around: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """What the steps lead to, each with the object in which it lies."""
    if not steps:
        yield value, around
    elif steps[0] == "*" and isinstance(value, list):
        for item in value:
            yield from _reach(item, steps[1:], around)
    elif isinstance(value, dict) and steps[0] in value:
        yield from _reach(value[steps[0]], steps[1:], value)
