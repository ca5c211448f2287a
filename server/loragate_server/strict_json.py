"""Reads JSON from strangers: what two readers could read in two ways is refused, and said how.

Whoever audits and whoever loads are different programs. Where a name stands twice, one takes the
first value and the other the last; NaN is a number to some and an error to others. Each caller puts
its own words around the errors of this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from decimal import Context, Decimal
from typing import Any, NoReturn

Pairs = list[tuple[str, Any]]
"""What stands in an object, in the order of the text."""


_WHOLE = 1 << 53
"""Up to it a double keeps every whole number."""

_DIGITS = 17
"""So many suffice to write any double; whoever writes more means another number."""

_PRECISE = Context(prec=10_000)


class DoubledNameError(ValueError):
    """An object has the same name twice."""

    def __init__(self, name: str) -> None:
        super().__init__(f"{name!r} stands there twice")
        self.name = name


class NoNumberError(ValueError):
    """A number that JSON lacks, as NaN, or of a kind that the caller does not take."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text} is no number here")
        self.text = text


def read(
    text: str,
    *,
    look: Callable[[Pairs], None] | None = None,
    fractions: bool = True,
    infinite: bool = False,
    exact: bool = False,
) -> Any:
    """The value of a document.

    Args:
        text: all of it.
        look: shown each object as soon as it is read, the inner ones first; may raise.
        fractions: whether numbers may have a point, an exponent or a sign before zero.
        infinite: whether NaN and Infinity are numbers, as they are to Python.
        exact: whether numbers have to be such that every reader keeps them as they are (RFC 7493).

    Raises:
        DoubledNameError: an object has the same name twice.
        NoNumberError: NaN, Infinity, a fraction where none is allowed, or a number that is not
            exact.
        ValueError: no JSON, or something behind its end.
        RecursionError: nested too deep to be read at all.
    """

    def unique(pairs: Pairs) -> dict[str, Any]:
        if look is not None:
            look(pairs)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise DoubledNameError(_doubled(pairs))
        return found

    if fractions:
        parse_float, parse_int = (_exact, _exact_whole) if exact else (None, None)
    else:
        parse_float, parse_int = _no_number, _whole
    return json.loads(
        text,
        object_pairs_hook=unique,
        parse_constant=float if infinite else _no_number,
        parse_float=parse_float,
        parse_int=parse_int,
    )


def require_exact(text: str) -> None:
    """Refuses a number that a double cannot keep: too large, too small, or with too many digits.

    Raises:
        NoNumberError: it is one.
    """
    value = float(text)
    if not math.isfinite(value) or abs(value) > _WHOLE:
        raise NoNumberError(text)
    try:
        written = Decimal(text).normalize(_PRECISE)
    except ArithmeticError:  # an exponent of twenty digits
        raise NoNumberError(text) from None
    if len(written.as_tuple().digits) > _DIGITS or (value == 0) != written.is_zero():
        raise NoNumberError(text)


def nesting(value: Any) -> int:
    """How deep objects and lists stand in each other, counted without recursion."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [
            child for item in level for child in (item.values() if isinstance(item, dict) else item)
        ]
    return depth


def _doubled(pairs: Pairs) -> str:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            return name
        seen.add(name)
    raise AssertionError("no name stands there twice")


def _exact(text: str) -> float:
    require_exact(text)
    return float(text)


def _exact_whole(text: str) -> int:
    if len(text) > _DIGITS or abs(int(text)) > _WHOLE:
        raise NoNumberError(text)
    return int(text)


def _whole(text: str) -> int:
    # -0 is a fraction to some readers, and no size to them
    return _no_number(text) if text.startswith("-0") else int(text)


def _no_number(text: str) -> NoReturn:
    raise NoNumberError(text)
