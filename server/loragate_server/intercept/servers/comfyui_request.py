"""What is known of one request to ComfyUI while it is read, each thing found out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.servers.comfyui_certain import Certain
from loragate_server.intercept.servers.comfyui_graph import Node, Value, is_link
from loragate_server.intercept.servers.comfyui_links import Links
from loragate_server.intercept.servers.comfyui_models import OtherModels
from loragate_server.intercept.servers.comfyui_presets import Presets
from loragate_server.intercept.servers.comfyui_strengths import Strengths
from loragate_server.intercept.servers.comfyui_tags import LORA_MANAGER, grammar_of


@dataclass(frozen=True)
class Graph:
    """The nodes of a request, and the files among which their names are looked up."""

    nodes: Mapping[str, Node]
    files: LoraFiles
    handed_on: dict[str, list[Value]] = field(default_factory=dict)

    @cached_property
    def links(self) -> Links:
        """What comes by links."""
        return Links(self.nodes)

    @cached_property
    def strengths(self) -> Strengths:
        """At which strengths nodes apply their LoRAs."""
        return Strengths(self.nodes)

    @cached_property
    def presets(self) -> Presets:
        """What nodes bring with their presets."""
        return Presets(self.nodes, self.strengths.linked)

    @cached_property
    def certain(self) -> Certain:
        """Which LoRAs nodes surely apply."""
        return Certain()

    @cached_property
    def takers(self) -> Mapping[str, Sequence[tuple[Node, str]]]:
        """For every node, those that take from it, with the input by which they do."""
        found: dict[str, list[tuple[Node, str]]] = {}
        for node in self.nodes.values():
            for name, value in node.inputs.items():
                if is_link(value):
                    found.setdefault(value[0], []).append((node, name))
        return found

    @cached_property
    def other_models(self) -> OtherModels:
        """Which files of weights are no LoRAs."""
        return OtherModels(self.nodes, self.takers)

    @cached_property
    def managed(self) -> bool:
        """Whether LoRA Manager takes a stack, and looks up anew what others put into it."""
        return any(
            grammar_of(node.class_type) is LORA_MANAGER
            and any(
                "stack" in name.casefold() and is_link(node.inputs[name]) for name in node.inputs
            )
            for node in self.nodes.values()
        )
