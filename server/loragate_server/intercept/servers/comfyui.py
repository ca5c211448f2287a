"""ComfyUI: every node of a graph is searched, because no list of loader nodes is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spot, below
from loragate_server.intercept.reading.references import AS_TRAINED, in_folder, looks_like_weights
from loragate_server.intercept.reading.sets import settled, used_at
from loragate_server.intercept.reading.tags import tags_in
from loragate_server.intercept.refusals import Location, place_of, unnamed, unreadable
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.servers.comfyui_flow import applied_together
from loragate_server.intercept.servers.comfyui_graph import (
    RGTHREE,
    Node,
    Value,
    is_link,
    nodes_of,
    resolved,
    strengths_given,
    strings_of,
)

_NAMES_LORA = re.compile(r"lora|lyco|locon", re.IGNORECASE)
_NAMES_FILE = re.compile(r"(^|_)(name|path|file|url|uri|air|repo|source|model|id|weights)$|[0-9]$")
# How fields of forms are called, in nodes that have LoRA in their class.
_LABELS = frozenset({"input_id", "display_name", "description"})
_NONE = frozenset({"", "none", "[none]"})
_OFF = frozenset({"off", "false", "disable", "disabled"})
# Inputs that say how a LoRA is applied, not which.
_HOW = re.compile(
    r"(^|_)(mode|type|on|enabled|active|count|strength\w*|str|weight|wt|dtype|rank|switch)(_?[0-9]+|_model|_clip)?$",
    re.IGNORECASE,
)
_SWITCHED = frozenset({"CR LoRA Stack", "CR Random LoRA Stack"})
GRAPHS = ("prompt", "workflow_api", "workflow")
"""Under which names requests hold graphs."""

MODEL_INPUTS = (
    "ckpt_name",
    "base_ckpt_name",
    "refiner_ckpt_name",
    "hires_ckpt_name",
    "vae_name",
    "unet_name",
    "clip_name",
    "clip_name1",
    "clip_name2",
    "clip_name3",
    "clip_name4",
    "control_net_name",
    "style_model_name",
    "gligen_name",
    "upscale_model",
    "ipadapter_file",
)
"""Inputs that hold other models' files, whatever the node."""

LOADER_INPUTS = (
    "UpscaleModelLoader.model_name",
    "UltralyticsDetectorProvider.model_name",
    "SAMLoader.model_name",
)
"""Inputs of one class that hold other models' files."""


@dataclass(frozen=True, kw_only=True)
class ComfyUI(ImageServer):
    """Settings and extractor of ComfyUI.

    Strings that nodes put together while the graph runs cannot be read from a request; loading
    has to be guarded inside the server as well where such nodes are installed.

    Attributes:
        lora_folder: the server's folder of LoRAs.
        graph_routes: further paths that take graphs, under `prompt`, `workflow_api` or
            `workflow`.
        model_inputs: inputs that hold files of other models; or `Class.input` for one class.
        ignored_inputs: `Class.input` of inputs that are never LoRAs although they look like it.
    """

    kind: ClassVar[str] = "comfyui"
    passed: ClassVar[tuple[str, ...]] = (
        # Messages of clients to /ws name features; what comes back is progress and previews.
        "UPGRADE /ws",
        "POST /queue",
        "POST /interrupt",
        "POST /free",
        "POST /history",
        "POST /upload/*",
        "POST /settings",
        "POST /settings/*",
        "POST /users",
        "POST /userdata/**",
        "PUT /userdata/**",
        "DELETE /userdata/**",
        "POST /assets",
        "POST /assets/**",
        "PUT /assets/**",
        "DELETE /assets/**",
        "POST /jobs/cancel",
        "POST /jobs/*/cancel",
        "PATCH /internal/logs/subscribe",
    )
    prefixes: ClassVar[tuple[str, ...]] = ("/api",)

    lora_folder: str
    graph_routes: tuple[str, ...] = ()
    model_inputs: tuple[str, ...] = (*MODEL_INPUTS, *LOADER_INPUTS)
    ignored_inputs: tuple[str, ...] = ()

    def guarded(self) -> tuple[Route, ...]:
        """The routes that take graphs."""
        return tuple(route("graph", one) for one in ("prompt", "jobs", *self.graph_routes))

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        document, body = read_object(request, self.limits)
        return Findings(self.adapters(body), document.text)

    def adapters(self, body: Mapping[str, Any]) -> tuple[Found, ...]:
        """The LoRAs of the graphs that a body holds.

        Raises:
            RefusedRequestError: a graph cannot be read, or names a LoRA in no way that can.
        """
        given = [name for name in GRAPHS if name in body]
        if not given:
            raise unreadable("The request has no graph.", "Send it under prompt.")
        found: list[Found] = []
        sets: list[frozenset[int]] = []
        for name in given:
            nodes = nodes_of(body[name], (name,))
            named = self._in_graph(nodes, name)
            if not named:
                continue
            owners = [owner for _, owner in named]
            loaded, together = applied_together([one for one, _ in named], owners, nodes)
            sets += [frozenset(number + len(found) for number in one) for one in together]
            found += loaded
        return settled(found, sets)

    def _in_graph(self, nodes: Mapping[str, Node], name: str) -> list[tuple[Found, str | None]]:
        """Every LoRA with the node that applies it; None for a tag, which a node may not read."""
        direct: list[tuple[Found, str | None]] = []
        linked: list[tuple[Found, str | None]] = []
        for node in nodes.values():
            for one in self._in_node(node, nodes, (name, node.key, "inputs")):
                at_home = one.spot is None or one.spot.location[1] == node.key
                is_tag = one.spot is not None and one.spot.within is not None
                (direct if at_home else linked).append((one, None if is_tag else node.key))
        # A constant that LoRA nodes take their names from is no LoRA of its own.
        # Places are made plain for people, so two may look alike; locations never do.
        taken = {one.spot.location for one, _ in linked if one.spot}
        return [pair for pair in direct if not _is_constant(pair[0], taken)] + linked

    def _in_node(
        self, node: Node, nodes: Mapping[str, Node], location: Location
    ) -> Iterator[Found]:
        for name, value in node.inputs.items():
            if f"{node.class_type}.{name}" in self.ignored_inputs:
                continue
            at = (*location, name)
            if is_link(value):
                yield from self._linked(name, value, node, nodes, at)
                continue
            for one in strings_of(value, (name,), node.inputs, at):
                if not _switched_off(node, one):
                    yield from self._in_string(one, node, nodes)
            if isinstance(value, list | dict):
                self._refuse_inner_links(value, (name,), at)

    def _linked(
        self, name: str, link: list[Any], node: Node, nodes: Mapping[str, Node], at: Location
    ) -> Iterator[Found]:
        """A name that comes from another node; what LoRA nodes hand on is found in those nodes."""
        if _HOW.search(name) or name.casefold().endswith("stack"):
            return
        if not _NAMES_LORA.search(name):
            in_lora_node = _NAMES_LORA.search(node.class_type) and _NAMES_FILE.search(name)
            if not in_lora_node or name == "model":
                return
        source = nodes.get(link[0])
        if source and _NAMES_LORA.search(source.class_type) and _has_names(source):
            yield from self._handed_on(name, source, node, nodes, at)
            return
        value, inner = resolved(link, nodes, place_of(*at))
        if not isinstance(value, str):
            raise unnamed(place_of(*at), "is linked to a number.", "Write the name into the node.")
        if value.strip().casefold() in _NONE:
            return
        one = Value(value, (name,), node.inputs, (at[0], *inner))
        yield self._applied(one, node, nodes)

    def _handed_on(
        self, name: str, source: Node, node: Node, nodes: Mapping[str, Node], at: Location
    ) -> Iterator[Found]:
        """What a LoRA node hands on is applied at the strength of the node that takes it."""
        taking = Value("", (name,), node.inputs, at)
        forces = strengths_given(taking, node, nodes, place_of(*at))
        for key, value in source.inputs.items():
            if is_link(value):
                continue
            where = (at[0], source.key, "inputs", key)
            for one in strings_of(value, (key,), source.inputs, where):
                if self._names_adapter(one, source) and not _switched_off(source, one):
                    own = strengths_given(one, source, nodes, place_of(*where))
                    both = [
                        Strength(
                            first.denoiser * second.denoiser,
                            first.text_encoder * second.text_encoder,
                        )
                        for first in forces
                        for second in own
                    ]
                    yield self._found(one, [*forces, *own, *both])

    def _in_string(self, one: Value, node: Node, nodes: Mapping[str, Node]) -> Iterator[Found]:
        if self._names_adapter(one, node):
            yield self._applied(one, node, nodes)
            return
        place = place_of(*one.location)
        for tag in tags_in(one.text, place):
            reference = used_at(self._reference(tag.name, place), tag.in_graphs())
            spelling = below(self.lora_folder)
            yield Found(reference, place, Spot(one.location, one.text, tag.span, spelling=spelling))

    def _names_adapter(self, one: Value, node: Node) -> bool:
        """Whether a string names a LoRA: by its name, its node, or what it looks like."""
        text, key = one.text.strip(), one.names[-1]
        if text.casefold() in _NONE:
            return False
        if key in self.model_inputs or f"{node.class_type}.{one.names[0]}" in self.model_inputs:
            return looks_like_weights(text) and (
                text.lower().startswith("urn:air:") or "://" in text
            )
        if looks_like_weights(text):
            return True
        if "<lora:" in text.casefold():
            return False
        if any(_NAMES_LORA.search(name) for name in one.names):
            return not _HOW.search(key) and not isinstance(one.holder.get(key), bool)
        in_lora_node = bool(_NAMES_LORA.search(node.class_type))
        if in_lora_node and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
            return True
        named = _NAMES_FILE.search(key) and key not in _LABELS
        return in_lora_node and bool(named) and not _HOW.search(key)

    def _applied(self, one: Value, node: Node, nodes: Mapping[str, Node]) -> Found:
        return self._found(one, strengths_given(one, node, nodes, place_of(*one.location)))

    def _found(self, one: Value, strengths: Sequence[Strength]) -> Found:
        place = place_of(*one.location)
        reference = used_at(self._reference(one.text, place), strengths or [AS_TRAINED])
        takes_file = reference.path is not None  # a node that takes a URL takes no file
        spelling = below(self.lora_folder) if takes_file else _unspeakable
        return Found(reference, place, Spot(one.location, one.text, spelling=spelling))

    def _reference(self, text: str, place: str) -> AdapterReference:
        return in_folder(text, self.lora_folder, place, suffix=".safetensors")

    def _refuse_inner_links(self, value: Any, names: tuple[str, ...], at: Location) -> None:
        """Nodes that take objects may follow links in them; then nobody knows the name."""
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            inner = (*names, str(key))
            if is_link(item) and any(_NAMES_LORA.search(name) for name in inner):
                raise unnamed(
                    place_of(*at, key), "links a LoRA from inside an object.", "Write its name."
                )
            if isinstance(item, dict | list) and not is_link(item):
                self._refuse_inner_links(item, inner, (*at, key))

    def error(self, status: int, code: str, message: str, decision_id: str) -> dict[str, Any]:
        """An error as ComfyUI's page and clients show it."""
        return {
            "error": {
                "type": code,
                "message": message,
                "details": f"decision {decision_id}",
                "extra_info": {},
            },
            "node_errors": {},
            "decision_id": decision_id,
        }


def _unspeakable(_: str) -> str | None:
    return None


def _is_constant(one: Found, taken: set[Location]) -> bool:
    return one.spot is not None and one.spot.within is None and one.spot.location in taken


def _has_names(node: Node) -> bool:
    """Whether a node's own inputs say which LoRA it hands on."""
    return any(
        _NAMES_LORA.search(name) and not (isinstance(value, int | float))
        for name, value in node.inputs.items()
    )


def _switched_off(node: Node, one: Value) -> bool:
    """Whether a node with switches leaves this LoRA out."""
    if node.class_type == RGTHREE:
        return len(one.names) == 2 and one.holder.get("on") is False
    if node.class_type in _SWITCHED and (number := re.fullmatch(r"lora_name_(\d+)", one.names[0])):
        switch = node.inputs.get(f"switch_{number[1]}")
        return isinstance(switch, str) and switch.casefold() in _OFF
    return False
