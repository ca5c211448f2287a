"""Replicate's cog: the inputs of a prediction that name LoRAs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from loragate_server import strict_json
from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import Findings, Found
from loragate_server.intercept.reading.references import (
    WEIGHT_SUFFIXES,
    anywhere,
    looks_like_weights,
)
from loragate_server.intercept.reading.sets import by_source, used_at
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import (
    ambiguous_adapter,
    ambiguous_body,
    door_closed,
    place_of,
    unnamed,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.servers.cog_workflow import is_workflow, json_in, refuse_loras

_SCALE = re.compile(r"scale|strength|weight_?value|multiplier")
_WEIGHTS = re.compile(r"lora|^(replicate|custom|extra)?_?weights(_url)?$")
_SECRETS = re.compile(r"token|api_key")
_OWNED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9._-]+(:[0-9a-f]+)?")
_HUB_PREFIX = re.compile(r"(www\.)?(huggingface\.co|hf\.co)/", re.IGNORECASE)
_NONE = (None, "", "none", "None")
_DOCUMENTED = {
    "lora_weights": "lora_scale",
    "extra_lora": "extra_lora_scale",
    "extra_lora_weights": "extra_lora_scale",
    "hf_lora": "lora_scale",
    "hf_loras": "lora_scales",
    "lora_url": "lora_scale",
    "replicate_weights": "lora_scale",
}
"""Inputs of public models, and the inputs that hold their strengths."""


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
    passed: ClassVar[tuple[str, ...]] = (
        "POST /predictions/*/cancel",
        "POST /trainings/*/cancel",
        "POST /shutdown",
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
        named: list[tuple[Found, str]] = []
        for name, inputs in body.items():
            # Servers in Go read names without regard to case.
            if name.casefold() != "input":
                continue
            if name != "input" or not isinstance(inputs, dict):
                raise ambiguous_body("The inputs are no object under input.", "Send input: {...}.")
            named.extend(self._in_inputs(inputs))
        # A model ignores the inputs that it does not have.
        found = by_source([one for one, _ in named], [name for _, name in named])
        return Findings(found, document.text)

    def _in_inputs(self, inputs: dict[str, Any]) -> Iterator[tuple[Found, str]]:
        scales = _Scales(inputs)
        for name, value in inputs.items():
            lowered = name.casefold()
            if isinstance(value, bool | int | float):
                continue
            if _SECRETS.search(lowered) and not _any_weights(value):
                continue
            meant = json_in(value)
            if is_workflow(lowered, value, meant):
                refuse_loras(value, place_of("input", name), self.limits)
            elif (_WEIGHTS.search(lowered) and not _SCALE.search(lowered)) or _any_weights(value):
                for one in self._adapters(value, name, scales.of(name)):
                    yield one, name
            else:
                if strict_json.nesting(meant) > self.max_nesting:
                    raise unnamed(place_of("input", name), "is nested too deep.", "Send less.")
                _refuse_hidden(meant, place_of("input", name))

    def _adapters(self, value: Any, name: str, scales: Sequence[Any]) -> Iterator[Found]:
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
            numbers = [_of_item(scale, number, len(items), place) for scale in scales]
            hub = self.owner_names == "hub" or name.casefold().startswith("hf_")
            reference = _reference(item, place, hub=hub)
            yield Found(used_at(reference, [Strength(one, one) for one in numbers]), place)


class _Scales:
    """The strengths among the inputs of a request, by name: looked up, however many there are."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        self._inputs = inputs
        self._given: dict[str, list[tuple[Any, int]]] = {}
        kinds: dict[str, int] = {}
        for key, value in inputs.items():
            lowered = key.casefold()
            if _SCALE.search(lowered) and value is not None and value != []:
                kind = kinds.setdefault(repr(value), len(kinds))
                self._given.setdefault(lowered, []).append((value, kind))

    def of(self, name: str) -> list[Any]:
        """The strengths that an input may have, by the ways in which models name them.

        Models that document an input have its strength under a documented name. Of any other,
        nobody knows whether the model reads the strength, so 1, as trained, is among them.
        """
        if name in _DOCUMENTED and self._inputs.get(_DOCUMENTED[name]) is not None:
            return [self._inputs[_DOCUMENTED[name]]]
        given = [one for key in _scale_names(name.casefold()) for one in self._given.get(key, ())]
        if len({kind for _, kind in given}) > 1:
            raise ambiguous_adapter(
                place_of("input", name), "has several strengths.", "Send one strength."
            )
        return [*(value for value, _ in given[:1]), 1.0]


def _scale_names(lowered: str) -> set[str]:
    """How models may call the strength of an input."""
    stem = re.sub(r"_?(weights|url|path|model)$", "", lowered) or lowered
    wanted = {f"{stem}_scale", f"{lowered}_scale", f"{stem}_strength", f"{lowered}_strength"}
    if lowered.endswith("loras"):
        wanted |= {"lora_scales", "lora_scale", f"{lowered[:-1]}_scales", f"{lowered}_scales"}
    before = stem.rstrip("0123456789")
    if number := stem[len(before) :]:
        before = before.removesuffix("_")
        wanted |= {f"{before}_scale_{number}", f"{before}_scale{number}"}
    if lowered.startswith(("replicate", "custom", "weights", "hf_lora")):
        wanted.add("lora_scale")
    return wanted


def _of_item(scale: Any, number: int, count: int, place: str) -> float:
    if isinstance(scale, list):
        if scale and len(scale) != count:
            raise ambiguous_adapter(
                place, "is one of several with fewer or more strengths.", "Send one each."
            )
        scale = scale[number] if scale else 1.0
    return strength(scale, place)


def _reference(value: Any, place: str, *, hub: bool) -> AdapterReference:
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
    return anywhere(value, place)


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
