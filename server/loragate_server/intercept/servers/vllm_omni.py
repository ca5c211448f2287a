"""vLLM-Omni: `lora` objects in the requests for pictures and videos, and vLLM's own load route."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ServerWithDoors
from loragate_server.intercept.reading.bodies import parse_json, read_json, read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spot
from loragate_server.intercept.reading.forms import Field, is_form, read_form
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.references import is_file, on_disk_or_hub
from loragate_server.intercept.reading.sets import by_source
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    place_of,
    unnamed,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route

DOORS = (
    "init_weight_transfer_engine",
    "start_weight_update",
    "start_draft_weight_update",
    "update_weights",
    "finish_weight_update",
    "collective_rpc",
    "rollout/generate",
)
"""Routes that change weights, or name adapters in ways that are not read."""

_PATHS = ("local_path", "path", "lora_path", "lora_local_path")
_NAMES = ("name", "lora_name", "adapter")
_SCALES = ("scale", "lora_scale")
_NUMBERS = ("int_id", "lora_int_id")
_FLAGS = ("load_inplace", "is_3d_lora_weight")
_OBJECTS = frozenset({"lora", "loras", "lora_request"})
_REPEATABLE = frozenset({"image", "image[]", "url", "url[]", "mask"})
_LOAD = "load_lora_adapter"
_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_Named = tuple[Found, Hashable]
"""An adapter, and the object or list that names it, which a server reads as a whole or not."""
_JSON = (
    "chat/completions",
    "images/*",
    "tasks/*",
    "run",
    "completions",
    "responses",
    "messages",
    "embeddings",
    "invocations",
)
_MESSAGES = frozenset({"session.start", "session.interaction", "session.stop", "session.ping"})
"""What clients say while a video is made; the first says which adapter it is made with."""
_FORM = "form"
"""Routes that take forms; the others read JSON whatever the content type says."""


@dataclass(frozen=True, kw_only=True)
class VllmOmni(ServerWithDoors):
    """Settings and extractor of vLLM-Omni.

    The server keeps loaded adapters by the number that the client sends with them. A number that
    was loaded is not loaded again for another path, so requests that choose the number can make
    the server use other weights than their path says. They are refused unless allowed.

    Attributes:
        hub_ids: whether the server reaches the hub, which it asks for every path that it does not
            have. False only where it cannot: then `owner/name` is a relative path.
        allow_int_ids: lets clients choose the number by which the server keeps an adapter.
    """

    doors: ClassVar[tuple[str, ...]] = DOORS
    instead: ClassVar[str] = "Name adapters in the request for a picture"
    kind: ClassVar[str] = "vllm_omni"
    routes: ClassVar[tuple[Route, ...]] = (
        route(_LOAD, "load_lora_adapter"),
        *(route(door, door) for door in DOORS),
        route(_FORM, "images/edits"),
        route(_FORM, "images/variations"),
        route(_FORM, "videos"),
        route(_FORM, "videos/*"),
        route(_FORM, "audio/*"),
        route(_FORM, "audio/*/*"),
        *(route("json", one) for one in _JSON),
    )
    passed: ClassVar[tuple[str, ...]] = (
        "DELETE /v1/videos/*",
        "DELETE /v1/audio/voices/*",
        "POST /v1/responses/*/cancel",
        "POST /v1/unload_lora_adapter",
        "POST /v1/tokenize",
        "POST /tokenize",
        "POST /detokenize",
        "POST /abort_requests",
        "POST /pause",
        "POST /resume",
        "POST /sleep",
        "POST /wake_up",
        "POST /reset_prefix_cache",
        "POST /reset_mm_cache",
        "POST /reset_encoder_cache",
        "POST /start_profile",
        "POST /stop_profile",
    )
    sockets: ClassVar[tuple[str, ...]] = ("/v1/realtime/video",)

    hub_ids: bool = True
    allow_int_ids: bool = False

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if self.is_open_door(hit):
            return Findings()
        if hit.route.name == _LOAD:
            document, body = read_object(request, self.limits)
            return Findings(_together([self._adapter(body, ())]), document.text)
        if hit.route.name == _FORM and is_form(request):
            form = read_form(request, self.limits, _REPEATABLE)
            named = [one for field in form for one in self._in_field(field)]
            return Findings(_together(named), "", form)
        document = read_json(request, self.limits)
        return Findings(_together(list(self._walk(document.value, ()))), document.text)

    def find_message(self, request: HttpRequest) -> Findings:
        """See `ImageServer.find_message`."""
        document, message = read_object(request, self.limits)
        unlisted = self.unlisted_as(request, message.get("type"), _MESSAGES)
        named = list(self._walk(message, ()))
        return Findings(_together(named), document.text, unlisted=unlisted)

    def _in_field(self, field: Field) -> Iterator[_Named]:
        if field.file_name is not None:
            if speaks_of_lora(field.name):
                raise unnamed(place_of(field.name), "is a file.", "Name a path on the server.")
            return
        if field.name.casefold() in _OBJECTS:
            value = parse_json(field.text, self.limits, f"Field {place_of(field.name)}").value
            yield from self._objects(value, (), field.name)
        elif speaks_of_lora(field.name):
            if field.text.strip() not in ("", "null"):
                raise _unknown(place_of(field.name))
        elif "lora" in field.text.casefold() or "\\u" in field.text:
            yield from self._in_text(field)

    def _in_text(self, field: Field) -> Iterator[_Named]:
        """Adapters in a field that holds JSON for further parameters."""
        try:
            json.loads(field.text)
        except (ValueError, RecursionError):
            return  # a prompt
        value = parse_json(field.text, self.limits, f"Field {place_of(field.name)}").value
        if isinstance(value, dict | list):
            yield from self._walk(value, (), field.name)

    def _walk(self, value: Any, location: Location, field: str | None = None) -> Iterator[_Named]:
        """The adapters at any depth: further parameters come under several names."""
        if isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, dict | list):
                    yield from self._walk(item, (*location, number), field)
            return
        if not isinstance(value, dict):
            return
        for name, item in value.items():
            inner = (*location, name)
            if name.casefold() in _OBJECTS:
                yield from self._objects(item, inner, field)
            elif speaks_of_lora(name) and item and not isinstance(item, int | float):
                raise _unknown(place_of(*inner))
            elif isinstance(item, dict | list):
                yield from self._walk(item, inner, field)

    def _objects(self, value: Any, location: Location, field: str | None) -> Iterator[_Named]:
        if value is None:
            return
        items = value if isinstance(value, list) else [value]
        for number, item in enumerate(items):
            inner = (*location, number) if isinstance(value, list) else location
            if item is not None:
                yield self._adapter(item, inner, field)

    def _adapter(self, value: Any, location: Location, field: str | None = None) -> _Named:
        where = (field, *location) if field else location
        place = place_of(*where) or "/"
        if not isinstance(value, dict):
            raise unnamed(place, "is no object with a path.", "Send name and path.")
        path_name = _only(value, _PATHS, place)
        named = _only(value, _NAMES, place) is not None
        scale_name = _only(value, _SCALES, place)
        if any(value.get(name) is not None for name in _NUMBERS) and not self.allow_int_ids:
            raise ambiguous_adapter(
                place,
                "chooses the number of the adapter, under which other weights may be loaded.",
                "Leave int_id out, or set allow_int_ids.",
            )
        known = {*_PATHS, *_NAMES, *_SCALES, *_NUMBERS, *_FLAGS}
        if any(speaks_of_lora(name) and name not in known for name in value):
            raise _unknown(place)
        if path_name is None:
            raise unnamed(place, "names no path.", "Send name and path.")
        scale = strength(value[scale_name], place) if scale_name else 1.0
        text = value[path_name]
        at = f"{place.rstrip('/')}/{path_name}"
        reference = on_disk_or_hub(text, at, Strength(scale, scale), hub_ids=self.hub_ids)
        if _as_peft(reference):
            reference = replace(reference, weight_name=_WEIGHTS)
        found = Found(reference, at, Spot((*location, path_name), text, form_field=field))
        holder = location[:-1] if location and isinstance(location[-1], int) else location
        # A server may pass over an object without a name.
        return found, (field, holder, named)

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """An error as OpenAI's clients expect it."""
        return {
            "error": {
                "message": message,
                "type": "permission_denied",
                "param": None,
                "code": code,
                "decision_id": decision_id,
            }
        }


def _together(named: Sequence[_Named]) -> tuple[Found, ...]:
    """A server reads one object or list of LoRAs, if any; which one depends on its version."""
    return by_source([found for found, _ in named], [source for _, source in named])


def _as_peft(reference: AdapterReference) -> bool:
    """Whether the server takes the weights of PEFT's name, whatever else lies beside them.

    In a folder without a configuration it takes the one file of weights; so does the audit.
    """
    if reference.path is None:
        return (reference.uri or "").startswith("hf://") and reference.weight_name is None
    return is_file(f"{reference.path}/{_CONFIG}")


def _only(value: dict[str, Any], names: tuple[str, ...], place: str) -> str | None:
    """The one of several names for the same thing that is given."""
    given = [name for name in names if value.get(name) not in (None, "")]
    if len(given) > 1:
        raise ambiguous_adapter(place, f"has both {given[0]} and {given[1]}.", "Send one of them.")
    return given[0] if given else None


def _unknown(place: str) -> Exception:
    return unnamed(
        place, "is no known way to name an adapter.", "Send a lora object with name and path."
    )
