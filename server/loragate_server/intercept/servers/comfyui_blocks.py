"""Nodes of ComfyUI that apply a LoRA in parts: to some blocks or layers of a model, or unevenly.

The audit judges a file as a whole. Some part of it, at a strength of its own, is another change.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import ambiguous_adapter
from loragate_server.intercept.servers.comfyui_graph import Node, is_link
from loragate_server.intercept.servers.comfyui_links import place_in
from loragate_server.intercept.servers.comfyui_numbers import Numbers
from loragate_server.intercept.servers.comfyui_tags import is_lora_class

_VECTOR = re.compile(r"block_?(vector|weights?)|^lbw", re.IGNORECASE)
"""One number for each block, in a text."""
_CHOSEN = re.compile(r"(selected_?|lora_?)?(blocks|layers)", re.IGNORECASE)
"""What another node selects; without any, the LoRA is applied as a whole."""
_KIND = re.compile(r"(blocks?|layers?)_?(type|filter)", re.IGNORECASE)
_ALL = frozenset({"", "all", "none"})
_ALPHA = re.compile(r"(double_|single_)?blocks\.[0-9]+\.", re.ASCII)
"""KJNodes put such a number in the place of a block's alpha, so that 1 is no whole either."""
_ONE_BLOCK = re.compile(
    r"(^|_|double|single|transformer|input|middle|output|down|up|mid)blocks?[._]?[0-9]",
    re.IGNORECASE | re.ASCII,
)
_MODALITIES = frozenset({"video", "audio", "other", "video_to_audio", "audio_to_video"})
"""Layers of LTX2 that have strengths of their own."""


def takes_loras(node: Node) -> bool:
    """Whether a node applies LoRAs that another one names."""
    return is_lora_class(node.class_type) and any(
        is_link(value) and (speaks_of_lora(name) or "stack" in name.casefold())
        for name, value in node.inputs.items()
    )


def refuse_parts(node: Node, numbers: Numbers) -> None:
    """Refuses a node of LoRAs that applies parts of them at strengths of their own.

    Args:
        node: that names LoRAs or takes some.
        numbers: what comes to it by links.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS, or ADAPTER_UNNAMED for a strength that is made
            while the graph runs.
    """
    modalities = _MODALITIES & node.inputs.keys()
    for name, item in node.inputs.items():
        if _is_part(name, item) or _is_uneven(name, item, node, numbers, modalities):
            raise ambiguous_adapter(
                place_in(node, name),
                "gives blocks of the model strengths of their own, which an audit cannot take in.",
                "Give one strength for the whole LoRA.",
            )


def _is_part(name: str, item: Any) -> bool:
    if _VECTOR.search(name):
        return item not in (None, "") and not _all_ones(item)
    if _CHOSEN.fullmatch(name) or _KIND.fullmatch(name):
        unset = item.strip().casefold() in _ALL if isinstance(item, str) else not item
        return not unset
    if _ALPHA.match(name):
        return True
    if _ONE_BLOCK.search(name):
        return is_link(item) or (isinstance(item, int | float) and item != 1)
    return False


def _is_uneven(
    name: str, item: Any, node: Node, numbers: Numbers, modalities: Collection[str]
) -> bool:
    """Whether an input is a strength for some layers alone, other than 1."""
    if name not in modalities:
        return False
    place = place_in(node, name)
    if is_link(item):  # alone, it may be a film
        return len(modalities) > 1 and numbers.behind(item, place) != 1
    if isinstance(item, bool) or not isinstance(item, int | float | str):
        return False
    if isinstance(item, str) and len(modalities) == 1:
        return False
    return strength(item, place) != 1


def _all_ones(value: Any) -> bool:
    return isinstance(value, str) and {one.strip() for one in value.split(",")} <= {"1", "1.0"}
