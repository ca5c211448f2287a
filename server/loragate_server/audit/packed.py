"""Concepts of the evidence that stand in one text: a library of thousands is not told one by one.

A concept takes some five hundred bytes as JSON, twice in a record. In columns, compressed, it takes
25 to 50, and not a bit of it is lost: whoever decides again decides over all of them (`whole`).
The columns are those of doubles, by bytes of equal weight, since their upper bytes are alike.

Free of torch and numpy, so that policy and record can read it.
"""

from __future__ import annotations

import base64
import json
import math
import sys
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from loragate_server.audit.evidence import ConceptEvidence, Evidence

_VERSION = 1
_BYTES = 8
"""Of a double."""
_LARGEST = 64 << 20
"""Bytes that a text may hold when it is opened: a hundred times those of 5,000 concepts."""

_NUMBERS = (
    "score",
    "p_value",
    "degree",
    "family_p_value",
    "screen_score",
    "response_score",
    "degree_p_value",
)
_OTHERS = tuple(one.name for one in fields(ConceptEvidence) if one.name not in _NUMBERS)


def without(evidence: Evidence, told: Callable[[ConceptEvidence], bool]) -> Evidence:
    """The evidence with the concepts that are told, and the others in one text.

    Args:
        evidence: with all of its concepts, or some of them packed already.
        told: which concepts stay as they are; their order stays as well.
    """
    every = whole(evidence).concepts
    places = [place for place, concept in enumerate(every) if told(concept)]
    if len(places) == len(every):
        return replace(evidence, concepts=every, packed="")
    kept = set(places)
    rest = [concept for place, concept in enumerate(every) if place not in kept]
    return replace(
        evidence, concepts=tuple(every[place] for place in places), packed=_pack(rest, places)
    )


def whole(evidence: Evidence) -> Evidence:
    """The evidence with all of its concepts in their order, to the last bit.

    Raises:
        ValueError: the text was not written by `without`.
    """
    if not evidence.packed:
        return evidence
    rest, places = _unpack(evidence.packed)
    told = dict(zip(places, evidence.concepts, strict=True))
    others = iter(rest)
    count = len(told) + len(rest)
    if len(told) != len(evidence.concepts) or any(not 0 <= place < count for place in told):
        raise ValueError("the packed concepts do not fit those that are told")
    every = tuple(told[place] if place in told else next(others) for place in range(count))
    return replace(evidence, concepts=every, packed="")


def _pack(rest: Sequence[ConceptEvidence], places: Sequence[int]) -> str:
    columns: dict[str, Any] = {name: [getattr(one, name) for one in rest] for name in _NUMBERS}
    written: list[bytes] = []
    said: dict[str, str | list[int]] = {}
    for name, values in columns.items():
        if name == "screen_score" and values == columns["score"]:
            said[name] = "as score"  # where the screen alone has looked
            continue
        missing = [place for place, value in enumerate(values) if value is None]
        if len(missing) == len(values):
            said[name] = "none"
            continue
        said[name] = missing
        written.append(_planes([math.nan if value is None else value for value in values]))
    others = {name: [getattr(one, name) for one in rest] for name in _OTHERS}
    head = {
        "version": _VERSION,
        "count": len(rest),
        "told": list(places),
        "numbers": said,
        "others": {name: _shared(values) for name, values in others.items()},
    }
    text = json.dumps(head, separators=(",", ":"), default=dict).encode("ascii")
    data = zlib.compress(b"".join((len(text).to_bytes(4, "big"), text, *written)), 6)
    return base64.b64encode(data).decode("ascii")


def _unpack(text: str) -> tuple[list[ConceptEvidence], list[int]]:
    try:
        opener = zlib.decompressobj()
        data = opener.decompress(base64.b64decode(text, validate=True), _LARGEST)
        if not opener.eof:
            raise ValueError("it is cut short, or larger than any library")
        end = 4 + int.from_bytes(data[:4], "big")
        head = json.loads(data[4:end])
        if head["version"] != _VERSION:
            raise ValueError(f"version {head['version']} is not known")
        columns = _columns(head, data[end:])
        # as records are read: what came later has its default, what is unknown is left out
        names = [name for name in (*_OTHERS, *_NUMBERS) if name in columns]
        rows = zip(*(columns[name] for name in names), strict=True)
        rest = [ConceptEvidence(**dict(zip(names, row, strict=True))) for row in rows]
        return rest, [int(place) for place in head["told"]]
    except (
        ValueError,
        zlib.error,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ValueError(f"packed concepts cannot be read: {error!r}") from error


def _columns(head: Mapping[str, Any], data: bytes) -> dict[str, Sequence[Any]]:
    count, at = int(head["count"]), 0
    found: dict[str, Sequence[Any]] = {}
    for name in _NUMBERS:
        if name not in head["numbers"]:
            continue
        said = head["numbers"][name]
        if said == "none":
            found[name] = [None] * count
        elif said == "as score":
            found[name] = found["score"]
        else:
            values: list[float | None] = [*_doubles(data[at : at + count * _BYTES], count)]
            for place in said:
                values[place] = None
            found[name] = values
            at += count * _BYTES
    if at != len(data):
        raise ValueError("packed concepts have more numbers than concepts")
    for name, column in head["others"].items():
        found[name] = [column["all"]] * count if "all" in column else column["each"]
    return found


def _shared(values: list[Any]) -> dict[str, Any]:
    """A column once, where all concepts say the same."""
    return {"all": values[0]} if all(value == values[0] for value in values) else {"each": values}


def _planes(values: Sequence[float]) -> bytes:
    """Doubles, first the lowest byte of each, last the highest."""
    raw = _little_endian(array("d", values)).tobytes()
    return b"".join(raw[byte::_BYTES] for byte in range(_BYTES))


def _doubles(planes: bytes, count: int) -> list[float]:
    if len(planes) != count * _BYTES:
        raise ValueError("packed concepts have fewer numbers than concepts")
    raw = bytearray(len(planes))
    for byte in range(_BYTES):
        raw[byte::_BYTES] = planes[byte * count : (byte + 1) * count]
    values = array("d")
    values.frombytes(bytes(raw))
    return _little_endian(values).tolist()


def _little_endian(values: array[float]) -> array[float]:
    if sys.byteorder == "big":
        values.byteswap()
    return values
