"""Fooocus-API: a list of LoRAs, tags in prompts, and the LoRA that goes with a fast performance."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import parse_json, read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spot, below
from loragate_server.intercept.reading.forms import Field, is_form, read_form
from loragate_server.intercept.reading.lora_files import LoraFiles, stem_of
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.references import in_folder
from loragate_server.intercept.reading.sets import MOST_ADAPTERS, settled, used_at
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.reading.tags import tags_in
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    place_of,
    unnamed,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route

_LORAS, _PERFORMANCE = "loras", "performance_selection"
_DEFAULT_WEIGHT = 0.5
_MOST_LOADED = 5
"""Of a longer list, the server leaves out what comes later, unless it is set to take more."""
_NONE = "None"
_FAST = {
    "Extreme Speed": ("sdxl_lcm_lora.safetensors", (1.0,)),
    "Lightning": ("sdxl_lightning_4step_lora.safetensors", (1.0,)),
    "Hyper-SD": ("sdxl_hyper_sd_4step_lora.safetensors", (0.8, 1.0)),
}
"""The files that the server adds itself, from its folder of LoRAs, and how strongly."""
_SLOW = ("Speed", "Quality")
_KNOWN = frozenset({"enabled", "model_name", "weight"})
_WILDCARD = re.compile(r"__[\w.\-+/*\\]+?__")
_REPEATABLE = frozenset({"style_selections", "outpaint_selections"})
_IN_JSON = frozenset({_LORAS, "advanced_params", "enhance_ctrlnets"})
"""Fields of a form whose text is JSON."""
_Named = tuple[Found, bool]
"""A LoRA, and whether every version of the server loads it."""


@dataclass(frozen=True, kw_only=True)
class Fooocus(ImageServer):
    """Settings and extractor of Fooocus-API.

    Where a request has no `loras`, the server takes those of its own configuration, as it does for
    its own page; a request does not tell them.

    Attributes:
        lora_folder: the server's folder of LoRAs.
        allow_wildcards: lets prompts hold `__name__`, for which the server puts in text from files.
    """

    kind: ClassVar[str] = "fooocus"
    routes: ClassVar[tuple[Route, ...]] = tuple(
        route("generate", f"generation/{one}")
        for one in (
            *("text-to-image", "text-to-image-with-ip", "image-upscale-vary"),
            *("image-inpaint-outpaint", "image-prompt", "image-enhance"),
        )
    )
    passed: ClassVar[tuple[str, ...]] = (
        "POST /v1/generation/stop",
        "POST /v1/tools/describe-image",
        "POST /v1/tools/generate_mask",
        "POST /v1/engines/refresh-models",
    )

    lora_folder: str
    allow_wildcards: bool = False

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        reader = _Reader(self, LoraFiles(self.lora_folder))
        if is_form(request):
            form = read_form(request, self.limits, _REPEATABLE)
            named = [one for field in form for one in self._in_field(field, reader)]
            return Findings(_together(named), "", form)
        document, body = read_object(request, self.limits)
        return Findings(_together(list(reader.walk(body, ()))), document.text)

    def _in_field(self, field: Field, reader: _Reader) -> Iterator[_Named]:
        if field.file_name is not None:
            if speaks_of_lora(field.name):
                raise unnamed(place_of(field.name), "is a file.", "Name LoRAs of the server.")
            return
        value: Any = field.text
        if field.name in _IN_JSON and field.text.strip():
            value = parse_json(field.text, self.limits, f"Field {place_of(field.name)}").value
        for found, certain in reader.walk({field.name: value}, ()):
            spot = found.spot and replace(
                found.spot, location=found.spot.location[1:], form_field=field.name
            )
            yield replace(found, spot=spot), certain


@dataclass(frozen=True)
class _Reader:
    """Finds the LoRAs of one request."""

    server: Fooocus
    files: LoraFiles

    def walk(self, value: Any, location: Location) -> Iterator[_Named]:
        """LoRAs in lists, texts and performances, at any depth: enhancements are objects too."""
        if isinstance(value, str):
            yield from self._in_text(value, location)
        elif isinstance(value, list):
            for number, item in enumerate(value):
                yield from self.walk(item, (*location, number))
        elif isinstance(value, dict):
            for name, item in value.items():
                inner = (*location, name)
                if inner == (_LORAS,):
                    yield from self._in_list(item, inner)
                elif inner == (_PERFORMANCE,):
                    yield from self._of_performance(item, inner)
                elif speaks_of_lora(name) and item not in (None, "", [], {}, _NONE):
                    raise unnamed(
                        place_of(*inner), "is no known way to name a LoRA.", "Send loras: [...]."
                    )
                else:
                    yield from self.walk(item, inner)

    def _in_list(self, value: Any, location: Location) -> Iterator[_Named]:
        if value in (None, "", []):
            return
        if not isinstance(value, list):
            raise unnamed(place_of(*location), "is no list.", "Send loras: [{model_name, weight}].")
        for number, item in enumerate(value):
            for found, enabled in self._in_item(item, (*location, number)):
                yield found, enabled and number < _MOST_LOADED

    def _in_item(self, item: Any, location: Location) -> Iterator[_Named]:
        place = place_of(*location)
        if not isinstance(item, dict) or set(item) - _KNOWN:
            raise unnamed(
                place, "is no LoRA as the server reads it.", "Send model_name, weight and enabled."
            )
        name = item.get("model_name")
        if name == _NONE:
            return
        weight = strength(item.get("weight", _DEFAULT_WEIGHT), place)
        enabled = item.get("enabled", True)
        if not isinstance(enabled, bool):
            raise ambiguous_adapter(place, "is neither enabled nor not.", "Send true or false.")
        at = (*location, "model_name")
        reference = self._reference(name, place_of(*at), (weight,))
        spot = Spot(at, str(name), spelling=below(self.server.lora_folder))
        # Versions that do not know `enabled` load what it leaves out.
        yield Found(reference, place_of(*at), spot), enabled

    def _of_performance(self, value: Any, location: Location) -> Iterator[_Named]:
        place = place_of(*location)
        if isinstance(value, str) and value in _FAST:
            file, weights = _FAST[value]
            yield Found(self._reference(file, place, weights), place), True
        elif value is not None and value not in _SLOW:
            raise unnamed(
                place,
                "is a performance that may come with a LoRA of its own.",
                f"Send one of {', '.join((*_SLOW, *_FAST))}.",
            )

    def _in_text(self, text: str, location: Location) -> Iterator[_Named]:
        place = place_of(*location)
        if not self.server.allow_wildcards and "__" in text and _WILDCARD.search(text):
            raise unnamed(
                place,
                "holds a wildcard, for which the server may put in tags.",
                "Write its text out, or set allow_wildcards.",
            )
        for tag in tags_in(text, place):
            if not tag.numbers:
                # The server's tag ends at the first number, wherever that is.
                raise ambiguous_adapter(
                    place, "has a tag without a number.", "Write <lora:name:1>."
                )
            weights = tag.numbers[:1]
            spot = Spot(location, text, tag.span, spelling=_as_stem(self.server.lora_folder))
            meant = self.files.meant(tag.name, _of_stem)
            for path in meant or (tag.name,):
                # Only some versions read tags, and those leave out what is named already.
                yield Found(self._reference(path, place, weights), place, spot), False

    def _reference(self, name: Any, place: str, weights: Sequence[float]) -> AdapterReference:
        reference = in_folder(name, self.server.lora_folder, place, suffix=".safetensors")
        return used_at(reference, [Strength(one, one) for one in weights])


def _of_stem(name: str, files: LoraFiles) -> tuple[str, ...]:
    """The server takes the first file of that stem, in an order that a request does not tell."""
    return tuple(path for path in files.names if stem_of(path) == name)


def _as_stem(folder: str) -> Any:
    inside = below(folder)

    def spell(path: str) -> str | None:
        stem = stem_of(path)
        return stem if inside(path) and not re.search(r"[:<>,]", stem) else None

    return spell


def _together(named: Sequence[_Named]) -> tuple[Found, ...]:
    """The certain ones together, and any of the others with them."""
    found = [one for one, _ in named]
    if len(found) > MOST_ADAPTERS:
        return tuple(found)
    certain = [number for number, (_, always) in enumerate(named) if always]
    others = [[*certain, number] for number, (_, always) in enumerate(named) if not always]
    return settled(found, [certain, *others, range(len(found))])
