"""Replicate's cog: the inputs of a prediction that name LoRAs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from loragate_server.intake.adapter import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.bodies import read_object
from loragate_server.intercept.findings import Findings, Found
from loragate_server.intercept.references import (
    WEIGHT_SUFFIXES,
    anywhere,
    looks_like_weights,
)
from loragate_server.intercept.refusals import (
    ambiguous_adapter,
    ambiguous_body,
    door_closed,
    place_of,
    unnamed,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.strengths import strength

_SCALES = re.compile(r"scale|strength|weight_?value|multiplier")
_WEIGHTS = re.compile(r"lora|^(replicate|custom|extra)?_?weights(_url)?$")
_SECRETS = re.compile(r"token|api_key")
_OWNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+(:[0-9a-f]+)?")
_HUB_PREFIX = re.compile(r"(www\.)?(huggingface\.co|hf\.co)/", re.IGNORECASE)
_NONE = (None, "", "none", "None")


@dataclass(frozen=True, kw_only=True)
class Cog(ImageServer):
    """Settings and extractor of cog.

    Attributes:
        owner_names: what `owner/name` means in inputs: a model on "replicate", which loragate
            cannot fetch, or a repository on the "hub".
        allow_training: leaves the route open that trains.
    """

    kind: ClassVar[str] = "cog"
    routes: ClassVar[tuple[Route, ...]] = (
        route("training", "trainings"),
        route("training", "trainings/*"),
        route("prediction", "predictions"),
        route("prediction", "predictions/*"),
    )

    owner_names: str = "replicate"
    allow_training: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.owner_names not in ("replicate", "hub"):
            raise ValueError('owner_names must be "replicate" or "hub".')

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if hit.route.name == "training":
            if self.allow_training:
                return Findings()
            raise door_closed("A training makes weights without an audit.", "Set allow_training.")
        document, body = read_object(request, self.limits)
        found: list[Found] = []
        for name, inputs in body.items():
            # Servers in Go read names without regard to case.
            if name.casefold() != "input":
                continue
            if name != "input" or not isinstance(inputs, dict):
                raise ambiguous_body("The inputs are no object under input.", "Send input: {...}.")
            found.extend(self._in_inputs(inputs))
        return Findings(tuple(found), document.text)

    def _in_inputs(self, inputs: dict[str, Any]) -> Iterator[Found]:
        for name, value in inputs.items():
            lowered = name.casefold()
            if _SECRETS.search(lowered) or isinstance(value, bool | int | float):
                continue
            if _WEIGHTS.search(lowered) and not _SCALES.search(lowered):
                scales = self._scales(inputs, lowered)
                yield from self._adapters(value, name, scales)
            elif _any_weights(value):
                yield from self._adapters(value, name, self._scales(inputs, lowered))
            else:
                _refuse_hidden(value, place_of("input", name))

    def _adapters(self, value: Any, name: str, scales: Any) -> Iterator[Found]:
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            raise unnamed(place_of("input", name), "is JSON in a text.", "Send a list.")
        if isinstance(value, dict):
            raise unnamed(place_of("input", name), "is an object.", "Send the reference as text.")
        items = value if isinstance(value, list) else [value]
        for number, item in enumerate(items):
            parts = ("input", name, number) if isinstance(value, list) else ("input", name)
            place = place_of(*parts)
            if item in _NONE:
                continue
            if isinstance(scales, list):
                if scales and len(scales) != len(items):
                    raise ambiguous_adapter(
                        place, "is one of several with fewer or more strengths.", "Send one each."
                    )
                scale = scales[number] if scales else 1.0
            else:
                scale = scales
            force = strength(scale, place)
            hub = self.owner_names == "hub" or name.casefold().startswith("hf_")
            yield Found(_reference(item, place, Strength(force, force), hub=hub), place)

    def _scales(self, inputs: dict[str, Any], name: str) -> Any:
        """The strength that belongs to an input, by the ways in which models name it."""
        stem = re.sub(r"_?(weights|url|path|model)$", "", name) or name
        lowered = {key.casefold(): value for key, value in inputs.items()}
        wanted = [f"{stem}_scale", f"{name}_scale", f"{stem}_strength", f"{name}_strength"]
        if name.endswith("loras"):
            wanted = ["lora_scales", "lora_scale", f"{name[:-1]}_scales", *wanted]
        if numbered := re.fullmatch(r"(.*?)_?(\d+)", stem):
            wanted += [f"{numbered[1]}_scale_{numbered[2]}", f"{numbered[1]}_scale{numbered[2]}"]
        if name.startswith(("replicate", "custom", "weights", "hf_lora")):
            wanted.append("lora_scale")
        given = [lowered[one] for one in dict.fromkeys(wanted) if lowered.get(one) is not None]
        if len({repr(one) for one in given}) > 1:
            raise ambiguous_adapter(
                place_of("input", name), "has several strengths.", "Send one strength."
            )
        return given[0] if given else 1.0


def _reference(value: Any, place: str, strength: Strength, *, hub: bool) -> AdapterReference:
    """The file that an input names. Data URIs are none: some servers unpack them as archives."""
    if not isinstance(value, str):
        raise unnamed(place, "is no text.", "Send the reference as text.")
    if _HUB_PREFIX.match(value):
        value = f"https://{value}"
    if not hub and _OWNED.fullmatch(value) and not value.lower().endswith(WEIGHT_SUFFIXES):
        raise unnamed(
            place,
            "names a model on Replicate, which loragate cannot fetch.",
            "Name a safetensors file by URL, or write huggingface.co/owner/name.",
        )
    return anywhere(value, place, strength)


def _refuse_hidden(value: Any, place: str) -> None:
    """Inputs are plain; a LoRA deeper in one is where no model documents it."""
    if not isinstance(value, dict | list):
        return
    pairs = value.items() if isinstance(value, dict) else [("", item) for item in value]
    for name, item in pairs:
        if _WEIGHTS.search(name.casefold()) or _any_weights(item):
            raise unnamed(place, "holds a LoRA inside an object.", "Name it in an input.")
        _refuse_hidden(item, place)


def _any_weights(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, str) and looks_like_weights(item) for item in items)
