"""Parameters of the open inference protocol that name adapters, and how strongly they act."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from functools import cached_property
from typing import Any

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.findings import Found, Spot
from loragate_server.intercept.reading.references import anywhere
from loragate_server.intercept.reading.sets import MOST_ADAPTERS, by_source, used_at
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    door_closed,
    place_of,
    unnamed,
)

_NAMED = re.compile(r"lora|adapter|peft")
_SCALE = re.compile(r"scale|strength|(?<!lora_)weight$")
_HARMLESS = re.compile(r"rank|count|max|enable|dtype|int_id|name$")
_OF_ADAPTERS = re.compile(r"lora|adapter|peft|^(scale|strength|weight)$")
_OF_OTHERS = re.compile(r"guidance|cfg|control|image|noise|rescale|upscale|ip_adapter")
_STEM = re.compile(r"_?(local_path|path|uri|url|id|source|file|name|weights?)$")
_MOST_STRENGTHS = 16


def adapters_in(
    value: Any, location: Location, *, hub_ids: bool, wide: bool = False
) -> Iterator[Found]:
    """Adapters under names that speak of LoRA, at any depth.

    Args:
        value: a JSON value.
        location: where it stands.
        hub_ids: whether `owner/name` is a repository on the hub.
        wide: takes `{"string_value": ...}` for its text, as model configurations write it.

    Raises:
        RefusedRequestError: a name speaks of LoRA, but its value is no reference.
    """
    if isinstance(value, list):
        for number, item in enumerate(value):
            if isinstance(item, dict | list):
                yield from adapters_in(item, (*location, number), hub_ids=hub_ids, wide=wide)
    elif isinstance(value, dict):
        _refuse_tensors(value, location)
        beside = _Beside(value)
        for name, item in value.items():
            inner = (*location, name)
            if _NAMED.search(name.casefold()):
                yield from _named(item, beside, inner, hub_ids=hub_ids, wide=wide)
            elif isinstance(item, dict | list):
                yield from adapters_in(item, inner, hub_ids=hub_ids, wide=wide)


def together(found: Sequence[Found]) -> tuple[Found, ...]:
    """The adapters of a request as the gate has to judge them.

    Which parameter a model reads is its own affair. A list of adapters is read as a whole; other
    lists hold requests of their own.
    """
    if len(found) > MOST_ADAPTERS:
        return tuple(found)
    return by_source(found, [_source(one) for one in found])


def _source(found: Found) -> Hashable:
    if found.spot is None:
        return found.place
    location = found.spot.location
    for at in range(len(location) - 1, 0, -1):
        if isinstance(location[at], int) and _NAMED.search(str(location[at - 1]).casefold()):
            return location[:at]
    return location


def _refuse_tensors(value: dict[str, Any], location: Location) -> None:
    """Inputs with the name of a LoRA carry weights as tensors."""
    name = value.get("name")
    if isinstance(name, str) and "datatype" in value and _NAMED.search(name.casefold()):
        raise door_closed(
            f"{place_of(*location)} carries an adapter as a tensor.",
            "Name a file of the adapter in a parameter.",
        )


def _named(
    item: Any, beside: _Beside, location: Location, *, hub_ids: bool, wide: bool
) -> Iterator[Found]:
    name, place = str(location[-1]).casefold(), place_of(*location)
    if wide and isinstance(item, dict) and set(item) == {"string_value"}:
        item = item["string_value"]
        location = (*location, "string_value")
    if item in (None, "", [], {}) or isinstance(item, bool):
        return
    if isinstance(item, int | float):
        return
    if isinstance(item, list) and all(isinstance(one, str) for one in item):
        for number, one in enumerate(item):
            where = (*location, number)
            yield _found(one, beside, where, name, place_of(*where), hub_ids)
    elif isinstance(item, dict | list):
        for number, one in enumerate(item if isinstance(item, list) else [item]):
            where = (*location, number) if isinstance(item, list) else location
            yield from _one_of(one, where, name, hub_ids=hub_ids, wide=wide)
    elif not _SCALE.search(name) and not _HARMLESS.search(name):
        yield _found(item, beside, location, name, place, hub_ids)
    elif not _SCALE.search(name):
        raise unnamed(place, "names an adapter without its file.", "Send its path or URI.")
    else:  # a strength; any other text may be a reference, whatever it is called
        strength(item, place)


def _one_of(
    item: Any, location: Location, name: str, *, hub_ids: bool, wide: bool
) -> Iterator[Found]:
    """What stands under a name that speaks of LoRA, or in a list there: `{"uri": ...}` and such.

    Every one names an adapter in some way: one that is passed over may be what the model reads.
    """
    place = place_of(*location)
    if isinstance(item, str) and item:
        yield _found(item, _Beside({}), location, name, place, hub_ids)
        return
    if not isinstance(item, dict):
        raise unnamed(place, "is no reference to an adapter.", "Send its path.")
    named = list(adapters_in(item, location, hub_ids=hub_ids, wide=wide))
    given = [key for key in ("path", "uri", "url", "source", "local_path") if item.get(key)]
    if len(given) > 1 or not (given or named):
        raise unnamed(place, "does not name one file.", "Send its path or URI.")
    for key in given:
        inner = (*location, key)
        named.append(_found(item[key], _Beside(item), inner, key, place_of(*inner), hub_ids))
    yield from named


def _found(
    value: str, beside: _Beside, location: Location, name: str, place: str, hub_ids: bool
) -> Found:
    strengths = beside.strengths(name, place)
    reference = used_at(anywhere(value, place, hub_ids=hub_ids), strengths)
    return Found(reference, place, Spot(location, value))


class _Beside:
    """The members of an object among which the strengths of its adapters may stand."""

    def __init__(self, siblings: dict[str, Any]) -> None:
        self._siblings = siblings
        self._known: dict[str, list[Strength]] = {}

    @cached_property
    def scales(self) -> dict[str, Any]:
        """What may be a strength, by its name in small letters."""
        return {
            key.casefold(): item
            for key, item in self._siblings.items()
            if _SCALE.search(key.casefold()) and item is not None
        }

    @cached_property
    def of_adapters(self) -> dict[str, Any]:
        """Those whose names speak of adapters."""
        return {key: item for key, item in self.scales.items() if _OF_ADAPTERS.search(key)}

    @cached_property
    def others(self) -> list[float]:
        """The numbers of those that may be anybody's, each once."""
        numbers = (
            strength(item, place_of(key))
            for key, item in self.scales.items()
            if type(item) in (int, float) and not _OF_OTHERS.search(key)
        )
        return list(dict.fromkeys(numbers))

    def strengths(self, name: str, place: str) -> list[Strength]:
        """As `_found_for`, found once for every name."""
        if name not in self._known:
            self._known[name] = self._found_for(name, place)
        return self._known[name]

    def _found_for(self, name: str, place: str) -> list[Strength]:
        """Every strength that an adapter may have by what stands beside it.

        The strength with the adapter's own name is the one. Of any other nobody knows whether the
        model reads it, so 1, as trained, is among them.
        """
        if len(self.of_adapters) - (name in self.of_adapters) > 1:
            raise ambiguous_adapter(place, "has several strengths.", "Send one strength.")
        own = [key for key in self.of_adapters if key != name]
        numbers = [strength(self.of_adapters[key], place) for key in own]
        documented = f"{_STEM.sub('', name)}_scale"
        if documented not in own or documented not in self._siblings:
            if len(self.others) > _MOST_STRENGTHS:
                raise ambiguous_adapter(place, "has many strengths.", "Send one strength.")
            numbers += [*self.others, 1.0]
        return [Strength(one, one) for one in numbers]
