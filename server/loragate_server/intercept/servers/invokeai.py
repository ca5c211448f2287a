"""InvokeAI: the routes that install models, in all versions of its API."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import check_whole, read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spot
from loragate_server.intercept.reading.references import (
    WEIGHT_SUFFIXES,
    anywhere,
    checked_text,
    hub_file,
)
from loragate_server.intercept.reading.sets import settled
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    door_closed,
    place_of,
    unnamed,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, query_value, route

_REPOSITORY = re.compile(r"([^/:]+/[^/:]+)(?::([^:]*))?(?::(.*))?")
_BODY_NAMES = ("source", "location", "path")
_QUERY_NAMES = ("source", "location", "path", "repo_id")
_CHANGES = frozenset({"POST", "PUT", "PATCH"})
_DOORS = frozenset({"sync", "convert", "merge", "restart_file", "download_queue", "custom_nodes"})
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")
_PASSED = tuple(
    f"/api/v1/{room}{rest}"
    for room in (
        *("app", "auth", "board_images", "board_videos", "boards", "canvas_projects"),
        *("client_state", "gallery", "image_moves", "images", "queue"),
        *("model_relationships", "recall", "sessions", "style_presets", "system_prompts"),
        *("utilities", "videos", "virtual_boards", "wildcards", "workflows"),
    )
    for rest in ("", "/**")
)
"""Rooms of the API that hold pictures, settings and graphs, whose models are named by keys."""


@dataclass(frozen=True, kw_only=True)
class InvokeAI(ImageServer):
    """Settings and extractor of InvokeAI.

    Every install is audited as an adapter, because the type in a request is the sender's word.
    Graphs name models by a key that only an install gives out, so they pass.

    Attributes:
        allow_doors: leaves the routes open that take in what already lies in folders, download
            files to any place, or install code.
    """

    kind: ClassVar[str] = "invokeai"
    routes: ClassVar[tuple[Route, ...]] = (
        route("install", "install/huggingface", any_method=True),
        route("install", "models/install", any_method=True),
        route("install", "models/heuristic_import"),
        route("install", "models/import"),
        route("install", "models/add"),
        route("install", "model/import"),
        route("install", "model/record"),
        route("install", "model/install"),
        route("record", "models/i/*"),
        route("record", "model/record/*"),
        route("sync", "models/sync", any_method=True),
        route("convert", "models/convert/*", any_method=True),
        route("merge", "models/merge"),
        route("merge", "models/merge/*"),
        route("restart_file", "install/*/restart_file", any_method=True),
        # Writes any file of the server, that of an installed model included.
        route("download_queue", "download_queue/i"),
        route("custom_nodes", "custom_nodes/install", any_method=True),
        route("custom_nodes", "custom_nodes/reload", any_method=True),
    )
    passed: ClassVar[tuple[str, ...]] = (
        # Clients subscribe to queues and downloads, and nothing else.
        "UPGRADE /ws/socket.io",
        "POST /ws/socket.io",
        *(f"{method} {one}" for method in _CHANGING for one in _PASSED),
        "DELETE /api/v1/download_queue/**",
        "PATCH /api/v1/download_queue",
        "DELETE /api/v2/models/**",
        "POST /api/v2/models/i/*/reidentify",
        "POST /api/v2/models/i/bulk_delete",
        "POST /api/v2/models/i/bulk_reidentify",
        "PATCH /api/v2/models/i/*/image",
        "POST /api/v2/models/install/*/pause",
        "POST /api/v2/models/install/*/resume",
        "POST /api/v2/models/install/*/restart_failed",
        "POST /api/v2/models/empty_model_cache",
        "POST /api/v2/models/hf_login",
        "DELETE /api/v2/custom_nodes/*",
        "DELETE /api/v1/models/**",
        "DELETE /api/v1/model/**",
    )

    allow_doors: bool = False

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if hit.route.name in _DOORS:
            if self.allow_doors:
                return Findings()
            raise door_closed(
                f"{hit.route.name} takes in models or code without an audit.",
                "Install the model by its source, or set allow_doors.",
            )
        check_whole(request)
        text = ""
        body: dict[str, Any] = {}
        if request.body.strip():
            document, body = read_object(request, self.limits)
            text = document.text
        found = [*self._in_query(request), *self._in_body(body, ())]
        if isinstance(body.get("config"), dict):
            found += self._in_body(body["config"], ("config",))
        if len({_identity(one) for one in found}) > 1:
            raise ambiguous_adapter(
                "The request", "names two sources for one model.", "Name one source."
            )
        if not found and hit.route.name == "install" and request.method.upper() in _CHANGES:
            raise unnamed("The request", "names no source.", "Send source in the query.")
        # All name one file; which of the names the server reads does not matter.
        return Findings(settled(found, [[number] for number in range(len(found))]), text)

    def _in_query(self, request: HttpRequest) -> list[Found]:
        values = [(name, query_value(request, name)) for name in _QUERY_NAMES]
        return [
            Found(self._reference(value, f"query {name}"), f"query {name}")
            for name, value in values
            if value is not None
        ]

    def _in_body(self, body: dict[str, Any], location: Location) -> list[Found]:
        found = []
        for name in _BODY_NAMES:
            if body.get(name) in (None, ""):
                continue
            place, value = place_of(*location, name), body[name]
            if isinstance(value, dict):
                found.append(Found(self._source_object(value, place), place))
            else:
                found.append(
                    Found(self._reference(value, place), place, Spot((*location, name), value))
                )
        return found

    def _source_object(self, value: dict[str, Any], place: str) -> AdapterReference:
        """A source in the form of InvokeAI's own types: local, hub or URL."""
        given = [name for name in ("path", "repo_id", "url") if value.get(name)]
        if len(given) != 1:
            raise unnamed(place, "is no source of one kind.", "Send source as text.")
        if given[0] == "repo_id":
            file = value.get("subfolder")
            file = None if file is None else checked_text(file, place)
            return hub_file(checked_text(value["repo_id"], place), place, file=file)
        return anywhere(value[given[0]], place, hub_ids=False)

    def _reference(self, value: Any, place: str) -> AdapterReference:
        """`owner/name`, `owner/name:variant:file`, a URL or a path."""
        text = checked_text(value, place)
        match = _REPOSITORY.fullmatch(text)
        if "://" in text or text.startswith(("/", ".", "~")) or not match:
            return anywhere(text, place, hub_ids=False)
        repository, variant, file = match.groups()
        if variant is None and repository.lower().endswith(WEIGHT_SUFFIXES):
            return anywhere(text, place, hub_ids=False)
        if file and file.lower().endswith(WEIGHT_SUFFIXES) and "+" not in file:
            return hub_file(repository, place, file=file.lstrip("/"))
        if variant or file:
            raise ambiguous_adapter(
                place,
                "leaves it to the server which file of the repository it takes.",
                "Write owner/name::path/to/file.safetensors.",
            )
        return hub_file(repository, place)


def _identity(found: Found) -> tuple[object, ...]:
    reference = found.reference
    return reference.path, reference.uri, reference.weight_name
