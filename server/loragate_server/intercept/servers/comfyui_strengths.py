"""At which strengths a node of ComfyUI applies the LoRA that one of its strings names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import ambiguous_adapter, place_of
from loragate_server.intercept.servers.comfyui_graph import RGTHREE, Node, Value, is_link
from loragate_server.intercept.servers.comfyui_links import place_in
from loragate_server.intercept.servers.comfyui_numbers import number_behind

_CORE = frozenset({"LoraLoader", "LoraLoaderModelOnly"})
_CORE_MODEL, _CORE_CLIP = ("strength_model",), ("strength_clip",)
_MODEL = ("strength_model", "model_weight", "model_strength", "lora_model_strength", "model_str")
_CLIP = (
    "strength_clip",
    "clip_weight",
    "clip_strength",
    "lora_clip_strength",
    "clip_str",
    "clipStrength",
)
_BOTH = ("strength", "weight", "lora_wt", "lora_weight", "lora_strength", "scale")
_TWO = ("strengthTwo", "strength_two", "strengthtwo")
_NUMBERED = re.compile(r"(.*?)_?0*(\d+)(?:_name)?$")
_BLOCKS = re.compile(r"block_?(vector|weights?)|^lbw", re.IGNORECASE)


def strengths_given(value: Value, node: Node, nodes: Mapping[str, Node]) -> tuple[Strength, ...]:
    """Every strength at which a node may apply the LoRA that one of its strings names.

    Nodes of one class take their strengths from some of the inputs that may hold them. Which,
    only the classes of ComfyUI itself and of widespread packs tell. Empty where none is given.

    Raises:
        RefusedRequestError: a strength is no number, made while the graph runs, or one of many for
            the blocks of a model, which an audit of the whole cannot follow.
    """
    for name, item in node.inputs.items():
        if _BLOCKS.search(name) and item not in (None, "") and not _all_ones(item):
            raise ambiguous_adapter(
                place_of(node.key, "inputs", name),
                "gives blocks of the model strengths of their own, which an audit cannot take in.",
                "Give one strength for the whole LoRA.",
            )
    numbered = _NUMBERED.fullmatch(value.names[-1])
    suffix = numbered[2] if numbered else ""

    def numbers(stems: tuple[str, ...]) -> list[float]:
        found = []
        for name, item in value.holder.items():
            if _names_same(name, stems, suffix) and item is not None:
                if is_link(item):
                    found.append(number_behind(item, nodes, place_in(node, name)))
                else:
                    found.append(strength(item, place_of(node.key, "inputs", name)))
        return found

    model_only = node.class_type.endswith("ModelOnly")
    if node.class_type in _CORE:
        model, clip = numbers(_CORE_MODEL), [0.0] if model_only else numbers(_CORE_CLIP)
        return tuple(Strength(one, other) for one in model or [1.0] for other in clip or [1.0])
    both, model, clip = numbers(_BOTH), numbers(_MODEL), numbers(_CLIP)
    two = numbers(_TWO)
    mode = node.inputs.get("input_mode")
    if node.class_type == RGTHREE and both:
        return tuple(Strength(one, two[0] if two else one) for one in both)
    if mode == "simple" and both:
        return tuple(Strength(one, one) for one in both)
    if mode == "advanced" and model and clip:
        both = []
    clip += two
    if model_only:
        return tuple(Strength(one, 0.0) for one in (*model, *both, *([] if both or model else [1])))
    pairs = [Strength(one, one) for one in both if model or not clip]
    if model or clip:
        firsts = model or both or [1.0]
        pairs += [Strength(one, two) for one in firsts for two in clip or [*both, one]]
    if pairs and not clip and is_link(node.inputs.get("model")) and "clip" not in node.inputs:
        pairs += [Strength(one.denoiser, 0.0) for one in pairs]
    return tuple(dict.fromkeys(pairs))


def _all_ones(value: Any) -> bool:
    return isinstance(value, str) and {one.strip() for one in value.split(",")} <= {"1", "1.0"}


def _names_same(name: str, stems: tuple[str, ...], suffix: str) -> bool:
    """Whether an input is one of `stems` for the LoRA with this number."""
    if not suffix:
        return name in stems
    for stem in stems:
        rest = name.removeprefix(stem).removeprefix("_")
        if name.startswith(stem) and rest.isdigit() and int(rest) == int(suffix):
            return True
        infix = re.fullmatch(r"lora_0*(\d+)_(.+)", name)
        if infix and int(infix[1]) == int(suffix) and infix[2] == stem:
            return True
    return False
