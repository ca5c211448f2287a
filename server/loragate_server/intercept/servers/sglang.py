"""SGLang's diffusion server: `/v1/set_lora`, and the doors beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.base import ServerWithDoors
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spot
from loragate_server.intercept.reading.references import on_disk_or_hub
from loragate_server.intercept.reading.sets import settled
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
    "merge_lora_weights",
    "update_weights_from_disk",
    "update_weights_from_tensor",
    "update_weights_from_distributed",
    "update_weights_from_ipc",
    "init_weights_update_group",
    "load_lora_adapter",
    "load_lora_adapter_from_tensors",
)
"""Routes that change weights without a reference that could be audited."""

_SET_LORA = "set_lora"
_EVERY = "all"
"""The target that stands for every transformer of the model."""


@dataclass(frozen=True, kw_only=True)
class SGLang(ServerWithDoors):
    """Settings and extractor of SGLang's diffusion server.

    Attributes:
        hub_ids: whether the server reaches the hub, which it asks for every path that it does not
            have. False only where it cannot: then `owner/name` is a relative path.
        allow_known_nicknames: lets requests pass that activate a nickname without a path. Right
            only where nothing but audited requests can have loaded it.
        allow_alpha: lets requests override the alpha of an adapter; the audit uses the file's.
    """

    doors: ClassVar[tuple[str, ...]] = DOORS
    instead: ClassVar[str] = "Load adapters with set_lora"
    kind: ClassVar[str] = "sglang"
    routes: ClassVar[tuple[Route, ...]] = (
        route(_SET_LORA, "set_lora"),
        *(route(door, door) for door in DOORS),
    )
    passed: ClassVar[tuple[str, ...]] = (
        "POST /v1/images/*",
        "POST /v1/videos",
        "POST /v1/videos/generations",
        "DELETE /v1/videos/*",
        "POST /v1/meshes",
        "DELETE /v1/meshes/*",
        "POST /v1/actions/generations",
        "POST /v1/chat/completions",
        "POST /vertex_generate",
        "POST /rollout/generate",
        "POST /v1/unmerge_lora_weights",
        "POST /v1/unload_lora_adapter",
        "POST /unload_lora_adapter",
        "POST /get_weights_checksum",
        "POST /update_weights_from_tensor_checker",
        "POST /release_memory_occupation",
        "POST /resume_memory_occupation",
        "POST /abort_request",
        "POST /flush_cache",
        "POST /start_profile",
        "POST /stop_profile",
    )

    hub_ids: bool = True
    allow_known_nicknames: bool = False
    allow_alpha: bool = False

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if self.is_open_door(hit):
            return Findings()
        document, body = read_object(request, self.limits)
        if body.get("lora_alpha") is not None and not self.allow_alpha:
            raise ambiguous_adapter(
                "/lora_alpha",
                "overrides the alpha that the audit reads from the file.",
                "Leave it out, or set allow_alpha.",
            )
        return Findings(self._adapters(body), document.text)

    def _adapters(self, body: dict[str, Any]) -> tuple[Found, ...]:
        nicknames, paths = body.get("lora_nickname"), body.get("lora_path")
        count = len(nicknames) if isinstance(nicknames, list) else 1
        several = count > 1 or isinstance(paths, list)
        references = _spread(paths, count, "lora_path", shared=not several)
        strengths = _spread(body.get("strength", 1.0), count, "strength", shared=True)
        target = body.get("target")
        # One adapter for several transformers is active alone in each.
        target = _EVERY if target is None or count == 1 else target
        targets = _spread(target, count, "target", shared=True)
        _refuse_shared_nicknames(nicknames, references)
        found, transformers = [], []
        for (location, path), (where, value), (at, target) in zip(
            references, strengths, targets, strict=True
        ):
            if path is None and self.allow_known_nicknames:
                continue
            if path is None:
                raise unnamed(
                    place_of(*location),
                    "activates a nickname without naming the file.",
                    "Send the path again, or set allow_known_nicknames.",
                )
            number = strength(value, place_of(*where))
            place = place_of(*location)
            force = Strength(number, number)
            reference = on_disk_or_hub(path, place, force, hub_ids=self.hub_ids)
            found.append(Found(reference, place, Spot(location, path)))
            transformers.append(_target(target, place_of(*at)))
        # Each transformer has those LoRAs active that are meant for it; there may be further ones.
        return settled(
            found,
            (
                [n for n, one in enumerate(transformers) if one in (_EVERY, name)]
                for name in {_EVERY, *transformers}
            ),
        )


def _spread(value: Any, count: int, name: str, *, shared: bool) -> Sequence[tuple[Location, Any]]:
    """A value for each of `count` adapters, with its location."""
    if isinstance(value, list):
        if len(value) != count:
            raise ambiguous_adapter(
                f"/{name}", f"has {len(value)} items for {count} nicknames.", "Send one for each."
            )
        return [((name, number), item) for number, item in enumerate(value)]
    if not shared and value is not None:
        raise ambiguous_adapter(f"/{name}", "is one for several nicknames.", "Send a list.")
    return [((name,), value)] * count


def _target(value: Any, place: str) -> str:
    if not isinstance(value, str):
        raise ambiguous_adapter(place, "is no name of a transformer.", "Send its name.")
    return value


def _refuse_shared_nicknames(nicknames: Any, references: Sequence[tuple[Location, Any]]) -> None:
    """The server keeps one file per nickname, so a nickname for two files may mean either."""
    if not isinstance(nicknames, list):
        return
    files: dict[str, Any] = {}
    for number, (name, (_, path)) in enumerate(zip(nicknames, references, strict=True)):
        if files.setdefault(repr(name), path) != path:
            raise ambiguous_adapter(
                place_of("lora_nickname", number), "stands for two files.", "Send one for each."
            )
