"""Xinference: LoRAs are loaded with a model, when it is launched, and fused into it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.base import ServerWithDoors
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spot
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.references import on_disk_or_hub
from loragate_server.intercept.reading.sets import by_source
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import Location, ambiguous_adapter, place_of, unnamed
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route

DOORS = ("model_registrations",)
"""Routes by which models come in whose weights, or whose code, a later launch names alone."""

_CONFIG, _LIST, _OLD_PATH = "peft_model_config", "lora_list", "peft_model_path"
_LOAD, _FUSE = "image_lora_load_kwargs", "image_lora_fuse_kwargs"
_LIGHTNING_PATH, _LIGHTNING_VERSION = "lightning_model_path", "lightning_version"
_HARMLESS_TO_LOAD = frozenset({"weight_name", "adapter_name", "use_safetensors", "cache_dir"})
_HARMLESS_TO_FUSE = frozenset({"lora_scale", "safe_fusing"})
_NONE: tuple[object, ...] = (None, "", [], {})
_Named = tuple[Found, Hashable]
"""A LoRA, and where it stands: of several, versions of diffusers fuse all or the last."""


@dataclass(frozen=True, kw_only=True)
class Xinference(ServerWithDoors):
    """Settings and extractor of Xinference.

    Pictures are drawn with the LoRAs that their model was launched with; a request for one names
    none.

    Attributes:
        hub_ids: whether the server reaches the hub, which it asks for every path that it does not
            have. False only where it cannot: then `owner/name` is a relative path.
    """

    doors: ClassVar[tuple[str, ...]] = DOORS
    instead: ClassVar[str] = "Launch a model that the server knows"
    kind: ClassVar[str] = "xinference"
    routes: ClassVar[tuple[Route, ...]] = (
        route("launch", "models"),
        route("launch", "models/instance"),
        route("launch", "autostart/models"),
        route("model_registrations", "model_registrations/*"),
        # It reads a model's files, and registers them.
        route("model_registrations", "models/llm/auto-register"),
    )
    passed: ClassVar[tuple[str, ...]] = (
        "POST /token",
        "POST /v1/images/*",
        "POST /v1/video/*",
        "POST /v1/video/*/*",
        "POST /v1/chat/completions",
        "POST /v1/completions",
        "POST /v1/embeddings",
        "POST /v1/rerank",
        "POST /v1/audio/*",
        # Its own subset of A1111's API takes prompts as they are, without tags.
        "POST /sdapi/v1/txt2img",
        "POST /sdapi/v1/img2img",
        "POST /sdapi/v1/interrupt",
        "POST /controlnet/detect",
        "POST /v1/models/*/cancel",
        "POST /v1/models/*/requests/*/abort",
        "DELETE /v1/models/**",
        "DELETE /v1/autostart/models/*",
        "DELETE /v1/model_registrations/*/*",
        "DELETE /v1/cache/models",
        "DELETE /v1/virtualenvs",
        "DELETE /v1/clusters",
    )

    hub_ids: bool = True

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if self.is_open_door(hit):
            return Findings()
        document, body = read_object(request, self.limits)
        named = list(self._walk(body, ()))
        found = by_source([one for one, _ in named], [source for _, source in named])
        return Findings(found, document.text)

    def _walk(self, value: Any, location: Location) -> Iterator[_Named]:
        """LoRAs at any depth: what starts by itself later is kept inside another object."""
        if isinstance(value, list):
            for number, item in enumerate(value):
                yield from self._walk(item, (*location, number))
        elif isinstance(value, dict):
            for name, item in value.items():
                yield from self._member(name, item, value, (*location, name))

    def _member(
        self, name: str, item: Any, holder: dict[str, Any], location: Location
    ) -> Iterator[_Named]:
        place = place_of(*location)
        if item in _NONE or name in (_LOAD, _FUSE):
            return
        if name == _CONFIG:
            if not isinstance(item, dict) or set(item) - {_LIST, _LOAD, _FUSE}:
                raise unnamed(place, "is no configuration of LoRAs.", "Send lora_list: [...].")
            yield from self._in_list(item, location)
        elif name == _OLD_PATH:
            yield self._found(item, location, holder), location
        elif name == _LIGHTNING_PATH:
            yield self._found(item, location, {}), location
        elif name == _LIGHTNING_VERSION:
            raise unnamed(
                place, "names a LoRA of the server's own list.", f"Send {_LIGHTNING_PATH}."
            )
        elif speaks_of_lora(name):
            raise unnamed(place, "is no known way to name a LoRA.", f"Send {_CONFIG}.")
        else:
            yield from self._walk(item, location)

    def _in_list(self, config: dict[str, Any], location: Location) -> Iterator[_Named]:
        items = config.get(_LIST) or []
        inner = (*location, _LIST)
        if not isinstance(items, list):
            raise unnamed(place_of(*inner), "is no list.", "Send [{lora_name, local_path}].")
        for number, item in enumerate(items):
            at = (*inner, number)
            if not isinstance(item, dict) or set(item) - {"lora_name", "local_path"}:
                raise unnamed(place_of(*at), "is no LoRA.", "Send lora_name and local_path.")
            yield self._found(item.get("local_path"), (*at, "local_path"), config), at

    def _found(self, path: Any, location: Location, config: dict[str, Any]) -> Found:
        """One LoRA, with the arguments for loading and fusing that stand beside it."""
        place = place_of(*location)
        load = _arguments(config, _LOAD, _HARMLESS_TO_LOAD, place)
        fuse = _arguments(config, _FUSE, _HARMLESS_TO_FUSE, place)
        force = strength(fuse.get("lora_scale", 1.0), place)
        reference = on_disk_or_hub(path, place, Strength(force, force), hub_ids=self.hub_ids)
        weight_name = load.get("weight_name")
        if weight_name is not None:
            if not isinstance(weight_name, str) or "/" in weight_name or not weight_name:
                raise ambiguous_adapter(place, "has no plain weight name.", "Send a file name.")
            reference = replace(reference, weight_name=weight_name)
        return Found(reference, place, Spot(location, path))


def _arguments(
    config: dict[str, Any], name: str, known: frozenset[str], place: str
) -> dict[str, Any]:
    given = config.get(name)
    if given in _NONE:
        return {}
    if not isinstance(given, dict) or set(given) - known:
        raise ambiguous_adapter(
            place,
            f"comes with {name} that an audit of the whole LoRA cannot follow.",
            f"Send none but {', '.join(sorted(known))}.",
        )
    return given
