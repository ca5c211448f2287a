"""ComfyUI: every node of a graph is searched, because no list of loader nodes is complete."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.reading.bodies import read_object
from loragate_server.intercept.reading.findings import Findings, Found, Spot, below
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.references import AS_TRAINED, in_folder
from loragate_server.intercept.reading.sets import settled, used_at
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    place_of,
    unnamed,
    unreadable,
)
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.routes import Hit, Route, route
from loragate_server.intercept.servers.comfyui_bases import refuse_other_bases
from loragate_server.intercept.servers.comfyui_blocks import takes_loras
from loragate_server.intercept.servers.comfyui_doubles import Owned, without_doubles
from loragate_server.intercept.servers.comfyui_flow import applied_together
from loragate_server.intercept.servers.comfyui_graph import (
    Node,
    Value,
    is_for_people,
    is_link,
    is_unused,
    nodes_of,
    resolved,
    strings_of,
    switched_off,
)
from loragate_server.intercept.servers.comfyui_inputs import may_take_name, names_adapter
from loragate_server.intercept.servers.comfyui_links import (
    constant_at,
    place_in,
    refuse_choice_by_number,
    refuse_inner_links,
    refuse_made_or_chosen,
)
from loragate_server.intercept.servers.comfyui_models import MODEL_INPUTS
from loragate_server.intercept.servers.comfyui_names import lies_among_loras
from loragate_server.intercept.servers.comfyui_request import Graph
from loragate_server.intercept.servers.comfyui_tags import (
    is_lora_class,
    mentioned_in,
    reads_tags,
    refuse_undecidable,
    resolvers_of,
)
from loragate_server.intercept.servers.comfyui_words import is_none, says_how

GRAPHS = ("prompt", "workflow_api", "workflow")
"""Under which names requests hold graphs."""
_MESSAGES = frozenset({"feature_flags"})
"""What a page says: the server reads nothing else, and loads nothing by it."""
_MOST_NAMED = 10_000
"""Links may name one LoRA as often as there are nodes. The gate takes in 64 in all."""
_ALSO_TEXT = re.compile(r"<|NODE")
"""What makes a text of one that ends as a file's name does."""


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
        allow_wildcards: lets texts hold `__name__` in nodes that put in text from files for it.
        base_names: what graphs with LoRAs may call the base model, as `base.safetensors`. With it,
            those that load another are refused; without it, nobody looks.
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
    sockets: ClassVar[tuple[str, ...]] = ("/ws",)
    prefixes: ClassVar[tuple[str, ...]] = ("/api",)

    lora_folder: str
    graph_routes: tuple[str, ...] = ()
    model_inputs: tuple[str, ...] = MODEL_INPUTS
    ignored_inputs: tuple[str, ...] = ()
    allow_wildcards: bool = False
    base_names: tuple[str, ...] = ()

    def guarded(self) -> tuple[Route, ...]:
        """The routes that take graphs."""
        return tuple(route("graph", one) for one in ("prompt", "jobs", *self.graph_routes))

    def find(self, hit: Hit, request: HttpRequest) -> Findings:
        """See `ImageServer.find`."""
        # ComfyUI's own files hold NaN under is_changed, and clients send them on.
        document, body = read_object(request, replace(self.limits, infinite=True))
        return Findings(self.adapters(body), document.text)

    def find_message(self, request: HttpRequest) -> Findings:
        """See `ImageServer.find_message`."""
        document, message = read_object(request, self.limits)
        unlisted = self.unlisted_as(request, message.get("type"), _MESSAGES)
        return Findings(text=document.text, unlisted=unlisted)

    def adapters(
        self, body: Mapping[str, Any], files: LoraFiles | None = None
    ) -> tuple[Found, ...]:
        """The LoRAs of the graphs that a body holds.

        Args:
            body: the document.
            files: among which names are looked up; those of the folder when not given.

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
            named = self._in_graph(nodes, name, files or LoraFiles(self.lora_folder))
            if not named:
                continue
            refuse_other_bases(nodes, name, self.base_names)
            owners = [owner for _, owner in named]
            loaded, together = applied_together([one for one, _ in named], owners, nodes)
            sets += [frozenset(number + len(found) for number in one) for one in together]
            found += loaded
        return settled(found, sets)

    def _in_graph(
        self, nodes: Mapping[str, Node], name: str, files: LoraFiles
    ) -> list[tuple[Found, str | None]]:
        """Every LoRA with the node that applies it; None for one that a node may not read."""
        graph = Graph(nodes, files)
        direct: list[Owned] = []
        linked: list[Owned] = []
        for node in nodes.values():
            each = self._in_node(node, graph, name)
            found = list(islice(each, _MOST_NAMED + 1))
            refuse_choice_by_number(node, found=bool(found))
            if len(direct) + len(linked) + len(found) > _MOST_NAMED:
                raise ambiguous_adapter(
                    "The graph", "names more LoRAs than an audit takes in.", "Send fewer."
                )
            for one, owner in found:
                at_home = one.spot is None or one.spot.location[1] == node.key
                (direct if at_home else linked).append((one, owner))
        return without_doubles(direct, linked)

    def _in_node(self, node: Node, graph: Graph, root: str) -> Iterator[Owned]:
        graph.presets.check(node)
        if takes_loras(node):
            graph.strengths.check_whole(node)
        for name, value in node.inputs.items():
            ignored = f"{node.class_type}.{name}" in self.ignored_inputs
            if ignored or is_for_people(node, name) or is_unused(node, name):
                continue
            at = (root, *node.at(name))
            if is_link(value):
                yield from self._linked(name, value, node, graph, at)
                continue
            for one in strings_of(value, (name,), node.inputs, at):
                if not switched_off(node, one):
                    yield from self._in_string(one, node, graph)
            if isinstance(value, list | dict):
                refuse_inner_links(value, (name,), at)

    def _linked(
        self, name: str, link: list[Any], node: Node, graph: Graph, at: Location
    ) -> Iterator[Owned]:
        """A name that comes from another node; what LoRA nodes hand on is found in those nodes."""
        refuse_made_or_chosen(name, link, node, graph.nodes, graph.links)
        if says_how(name) or name.casefold().endswith("stack"):
            return
        source = graph.nodes.get(link[0])
        from_loras = source and graph.links.names_loras(source)
        if reads_tags(node.class_type, name) and not (from_loras and speaks_of_lora(name)):
            yield from self._text_by_link(name, link, node, graph, at)
            return
        if not may_take_name(node, name):
            return
        if source and from_loras:
            yield from self._handed_on(name, source, node, graph, at)
            return
        value, inner = resolved(link, graph.nodes, place_in(node, name))
        if not isinstance(value, str):
            raise unnamed(
                place_in(node, name), "is linked to a number.", "Write the name into the node."
            )
        graph.links.taken(value)
        if is_none(value):
            return
        one = Value(value, (name,), node.inputs, (at[0], *inner))
        yield from self._applied(one, node, graph)

    def _text_by_link(
        self, name: str, link: list[Any], node: Node, graph: Graph, at: Location
    ) -> Iterator[Owned]:
        """The tags of a text that other nodes put together."""
        text = graph.links.text(link)
        if text is None:
            raise unnamed(
                place_in(node, name),
                "is a text for LoRAs that other nodes make while the graph runs.",
                "Write the text into the node.",
            )
        constant = constant_at(link, graph.nodes)
        location = (at[0], *constant) if constant else None
        yield from self._tags(text, node, name, graph, at, location)

    def _handed_on(
        self, name: str, source: Node, node: Node, graph: Graph, at: Location
    ) -> Iterator[Owned]:
        """What a LoRA node hands on is applied at the strength of the node that takes it."""
        taking = Value("", (name,), node.inputs, at)
        forces = graph.strengths.given(taking, node, place_of(*at))
        if source.key not in graph.handed_on:
            graph.handed_on[source.key] = list(self._names_in(source, at[0], graph))
        for one in graph.handed_on[source.key]:
            own = graph.strengths.given(one, source, place_of(*one.location))
            both = [
                Strength(first.denoiser * second.denoiser, first.text_encoder * second.text_encoder)
                for first in forces
                for second in own
            ]
            yield from self._found(one, [*forces, *own, *both], source, node.key, graph)

    def _names_in(self, source: Node, root: str | int, graph: Graph) -> Iterator[Value]:
        """The names of LoRAs that stand in the inputs of a node."""
        for key, value in source.inputs.items():
            if is_link(value):
                continue
            where = (root, *source.at(key))
            for one in strings_of(value, (key,), source.inputs, where):
                named = names_adapter(one, source, graph, self.model_inputs)
                if named and not switched_off(source, one):
                    yield one

    def _in_string(self, one: Value, node: Node, graph: Graph) -> Iterator[Owned]:
        named = names_adapter(one, node, graph, self.model_inputs)
        if named or lies_among_loras(one.text, graph.files):
            yield from self._applied(one, node, graph)
            if not _ALSO_TEXT.search(one.text):
                return
        yield from self._tags(one.text, node, one.names[0], graph, one.location, one.location)

    def _tags(
        self,
        text: str,
        node: Node,
        name: str,
        graph: Graph,
        at: Location,
        location: Location | None,
    ) -> Iterator[Owned]:
        """The LoRAs of the tags of a text, which stands at `location`, or nowhere as it is."""
        where = place_in(node, name)
        refuse_undecidable(text, node.class_type, name, where, wildcards=self.allow_wildcards)
        for tag in mentioned_in(text, node.class_type, where, graph.files):
            reference = used_at(self._reference(tag.name, where), tag.strengths)
            spelling = below(self.lora_folder)
            spot = Spot(location, text, tag.span, spelling=spelling) if location else None
            for meant in self._meant(reference, tag.paths):
                place = place_of(*(location or at))
                yield Found(meant, place, spot, holder=_shown(node)), None

    def _applied(self, one: Value, node: Node, graph: Graph) -> Iterator[Owned]:
        strengths = graph.strengths.given(one, node, place_of(*one.location))
        yield from self._found(one, strengths, node, node.key, graph)

    def _found(
        self, one: Value, strengths: Sequence[Strength], node: Node, owner: str, graph: Graph
    ) -> Iterator[Owned]:
        place = place_of(*one.location)
        reference = used_at(self._reference(one.text, place), strengths or [AS_TRAINED])
        reference = replace(reference, optional=not graph.certain.applies(one, node))
        takes_file = reference.path is not None  # a node that takes a URL takes no file
        spelling = below(self.lora_folder) if takes_file else _unspeakable
        resolvers = resolvers_of(node.class_type, one.text, managed=graph.managed)
        paths = graph.files.meant_by(one.text, resolvers if takes_file else ())
        for meant in self._meant(reference, paths):
            spot = Spot(one.location, one.text, spelling=spelling)
            yield (
                Found(meant, place, spot, holder=_shown(node)),
                owner if len(paths) < 2 else None,
            )

    def _meant(self, given: AdapterReference, paths: Sequence[str]) -> Iterator[AdapterReference]:
        """Every file that a name may mean; the one of that name where none is known."""
        for path in paths:
            yield replace(given, path=f"{self.lora_folder.rstrip('/')}/{path}")
        if not paths:
            yield given

    def _reference(self, text: str, place: str) -> AdapterReference:
        return in_folder(text, self.lora_folder, place, suffix=".safetensors", windows=True)

    def unless_adapter(self, place: str, holder: str) -> str:
        """See `ImageServer.unless_adapter`; nodes of LoRAs hold nothing else."""
        if not holder or is_lora_class(holder):
            return ""
        name = place.removeprefix("/").split("/")[3:4] or ["INPUT"]
        return (
            f"If it is no LoRA, add {holder}.{name[0]} to "
            f"intercept.extractors.{self.name}.settings.ignored_inputs."
        )

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


def _shown(node: Node) -> str:
    """The class of a node, for people."""
    return place_of(node.class_type).removeprefix("/")


def _unspeakable(_: str) -> str | None:
    return None
