"""ComfyUI's graphs: nodes, their inputs at any depth, links, and the strengths of their LoRAs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import (
    Location,
    ambiguous_adapter,
    place_of,
    unnamed,
    unreadable,
)
from loragate_server.intercept.servers.comfyui_tags import LORA_MANAGER, grammar_of

RGTHREE = "Power Lora Loader (rgthree)"
_SWITCHED = frozenset({"CR LoRA Stack", "CR Random LoRA Stack"})
_OFF = frozenset({"off", "false", "disable", "disabled"})
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
_MAX_HOPS = 16
_MUTED = (2, 4)

CONSTANTS = frozenset(
    {
        "PrimitiveString",
        "PrimitiveStringMultiline",
        "PrimitiveInt",
        "PrimitiveFloat",
        "PrimitiveNode",
        "Reroute",
        "String Literal",
        "StringConstant",
        "FloatConstant",
        "INTConstant",
        "easy string",
        "easy positive",
        "easy negative",
        "easy float",
    }
)
"""Classes of nodes that hand on their one input as it is."""


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        muted: whether it is marked as muted or bypassed, which ComfyUI's page leaves out.
    """

    key: str
    class_type: str
    inputs: dict[str, Any]
    muted: bool = False


@dataclass(frozen=True)
class Graph:
    """The nodes of a request, and the files among which their names are looked up."""

    nodes: Mapping[str, Node]
    files: LoraFiles

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
    def managed(self) -> bool:
        """Whether LoRA Manager takes a stack, and looks up anew what others put into it."""
        return any(
            grammar_of(node.class_type) is LORA_MANAGER
            and any(
                "stack" in name.casefold() and is_link(node.inputs[name]) for name in node.inputs
            )
            for node in self.nodes.values()
        )


@dataclass(frozen=True)
class Value:
    """A string in the inputs of a node.

    Attributes:
        names: of the members that lead to it, from the input on.
        holder: the object in which it stands, for the strengths beside it.
        location: in the document.
    """

    text: str
    names: tuple[str, ...]
    holder: Mapping[str, Any]
    location: Location


def nodes_of(graph: Any, location: Location) -> dict[str, Node]:
    """The nodes of a graph in the form of the API.

    Raises:
        RefusedRequestError: BODY_UNREADABLE when it has another form.
    """
    if not isinstance(graph, dict):
        raise unreadable("The graph is no object of nodes.", "Send it in the form of the API.")
    nodes = {}
    for key, node in graph.items():
        inputs = node.get("inputs", {}) if isinstance(node, dict) else None
        kind = node.get("class_type", "") if isinstance(node, dict) else None
        if not isinstance(inputs, dict) or not isinstance(kind, str):
            raise unreadable(
                f"{place_of(*location, key)} is no node.", "Send the graph in the form of the API."
            )
        nodes[key] = Node(key, kind, inputs, node.get("mode") in _MUTED)
    return nodes


def is_link(value: Any) -> bool:
    """Whether ComfyUI takes the value of an input from another node."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def strings_of(
    value: Any, names: tuple[str, ...], holder: Mapping[str, Any], location: Location
) -> Iterator[Value]:
    """Every string below an input, names of members included."""
    if isinstance(value, str):
        yield Value(value, names, holder, location)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            inner = {**holder, **{names[-1]: item}} if isinstance(item, str) else holder
            yield from strings_of(item, names, inner, (*location, number))
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from strings_of(item, (*names, name), value, (*location, name))


def resolved(link: list[Any], nodes: Mapping[str, Node], place: str) -> tuple[Any, Location]:
    """The constant that a link leads to, and where it stands below the graph.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED when it is made while the graph runs.
    """
    for _ in range(_MAX_HOPS):
        node = nodes.get(link[0])
        if node is None or len(node.inputs) != 1 or node.class_type not in CONSTANTS:
            break
        name, value = next(iter(node.inputs.items()))
        if is_link(value):
            link = value
        elif isinstance(value, str | int | float):
            return value, (node.key, "inputs", name)
        else:
            break
    raise unnamed(
        place,
        "is linked to a node that makes it while the graph runs.",
        "Write the value into the node.",
    )


def strengths_given(
    value: Value, node: Node, nodes: Mapping[str, Node], place: str
) -> tuple[Strength, ...]:
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
                    item, _ = resolved(item, nodes, place)
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


def switched_off(node: Node, one: Value) -> bool:
    """Whether a node with switches leaves this LoRA out."""
    if grammar_of(node.class_type) is LORA_MANAGER and one.holder.get("active") is False:
        return True
    if node.class_type == RGTHREE:
        return len(one.names) == 2 and one.holder.get("on") is False
    if node.class_type in _SWITCHED and (number := re.fullmatch(r"lora_name_(\d+)", one.names[0])):
        switch = node.inputs.get(f"switch_{number[1]}")
        return isinstance(switch, str) and switch.casefold() in _OFF
    return False


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
