"""Nodes of ComfyUI that bring a LoRA with a preset: the first file that has a certain name.

IP-Adapters for faces come with one. IPAdapter Plus, Easy Use and the Inspire Pack look for it among
the LoRAs of the server, where the request names none.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from loragate_server.intercept.reading.lora_words import begins_last_word, speaks_of_lora
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import unnamed
from loragate_server.intercept.servers.comfyui_graph import CONSTANTS, Node, is_link, resolved
from loragate_server.intercept.servers.comfyui_links import place_in
from loragate_server.intercept.servers.comfyui_numbers import Numbers

_OFF: tuple[object, ...] = (0, None)
_WITHOUT = ("portrait", "kolors")
"""Presets for faces that come without a LoRA."""


class Presets:
    """The presets of one graph."""

    def __init__(self, nodes: Mapping[str, Node], numbers: Numbers) -> None:
        self._nodes = nodes
        self._numbers = numbers

    def check(self, node: Node) -> None:
        """Refuses a node whose preset brings a LoRA, unless at a strength of 0.

        Raises:
            RefusedRequestError: ADAPTER_UNNAMED.
        """
        strengths = [
            name
            for name, item in node.inputs.items()
            if speaks_of_lora(name) and begins_last_word(name, "strength") and item not in _OFF
        ]
        if not strengths or not any(self._brings(node, name) for name in node.inputs):
            return
        for name in strengths:
            place, item = place_in(node, name), node.inputs[name]
            if self._numbers.behind(item, place) if is_link(item) else strength(item, place):
                raise unnamed(
                    place,
                    "is for a LoRA that comes with the preset, which the server finds by itself.",
                    "Set it to 0, and load that LoRA by a node that names it.",
                )

    def _brings(self, node: Node, name: str) -> bool:
        item = node.inputs[name]
        if _is_adapter(name) and is_link(item):
            return self._for_faces
        if _is_preset(name) and is_link(item):
            item, _ = resolved(item, self._nodes, place_in(node, name))
        return _is_preset(name) and _brings_lora(item)

    @cached_property
    def _for_faces(self) -> bool:
        """Whether any node loads an IP-Adapter for faces, which others may take from it."""
        return any(
            _brings_lora(item)
            for node in self._nodes.values()
            for name, item in node.inputs.items()
            if _is_preset(name) or _is_adapter(name) or node.class_type in CONSTANTS
        )


def _is_preset(name: str) -> bool:
    return "preset" in name.casefold()


def _is_adapter(name: str) -> bool:
    return "adapter" in name.casefold()


def _brings_lora(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    lowered = text.casefold()
    return "faceid" in lowered and not any(one in lowered for one in _WITHOUT)
