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
_DOORS = frozenset({"sync", "convert", "merge"})


@dataclass(frozen=True, kw_only=True)
class InvokeAI(ImageServer):
    """Settings and extractor of InvokeAI.

    Every install is audited as an adapter, because the type in a request is the sender's word.
    Graphs name models by a key that only an install gives out, so they pass.

    Attributes:
        allow_doors: leaves the routes open that take in what already lies in folders.
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
    )

    allow_doors: bool = False

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        if hit.route.name in _DOORS:
            if self.allow_doors:
                return Findings()
            raise door_closed(
                f"{hit.route.name} takes in models without an audit.",
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
