"""ComfyUI's graphs: nodes, their inputs at any depth, and links."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loragate_server.intercept.refusals import (
    Location,
    place_of,
    unnamed,
    unreadable,
)
from loragate_server.intercept.servers.comfyui_tags import LORA_MANAGER, grammar_of

RGTHREE = "Power Lora Loader (rgthree)"
_SWITCHED = frozenset({"CR LoRA Stack", "CR Random LoRA Stack"})
LISTS = frozenset(
    {
        "Lora Loader (LoraManager)",
        "Lora Stacker (LoraManager)",
        "WanVideo Lora Select (LoraManager)",
        "Create Hook LoRA (LoraManager)",
    }
)
"""Classes that take their LoRAs in a list, each active or not."""
_OFF = frozenset({"off", "false", "disable", "disabled"})
_MAX_HOPS = 16
_MAX_NAME_CHARS = 256
"""Of a class and of an input; those of widespread packs have fewer than a hundred."""
_MUTED = (2, 4)
_WRAPPER = "__value__"
"""ComfyUI takes what stands under it for the input, before it checks anything."""
_WRAPPED_TYPE = "__type__"
_TYPE = re.compile(r"\w{1,40}")
_PLOT = "XY Input: LoRA"
"""Of the Efficiency nodes; it looks through a folder in one of its modes."""
_MOST_OUTPUTS = 1 << 31
"""What is no number of an output is no link: 1e999 is none to any server."""

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
        "easy int",
        "Float",
        "Int",
        "ImpactFloat",
        "ImpactInt",
    }
)
"""Classes of nodes that hand on their one input as it is."""


@dataclass(frozen=True)
class Node:
    """One node of a graph.

    Attributes:
        inputs: as ComfyUI takes them, without wrappers.
        muted: whether it is marked as muted or bypassed, which ComfyUI's page leaves out.
        wrapped: the inputs that are sent in a wrapper.
    """

    key: str
    class_type: str
    inputs: dict[str, Any]
    muted: bool = False
    wrapped: frozenset[str] = frozenset()

    def at(self, name: str) -> Location:
        """Where the value of an input stands, below the graph."""
        return (self.key, "inputs", name, *((_WRAPPER,) if name in self.wrapped else ()))


@dataclass(frozen=True)
class Value:
    """A string in the inputs of a node.

    Attributes:
        names: of the members that lead to it, from the input on.
        holder: the object in which it stands, for the strengths beside it.
        location: in the document.
        around: the objects around that one, from the inside out; the last are the inputs.
        numbers: those that stand beside it in a list.
    """

    text: str
    names: tuple[str, ...]
    holder: Mapping[str, Any]
    location: Location
    around: tuple[Mapping[str, Any], ...] = ()
    numbers: tuple[float, ...] = ()


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
        for name in (kind, *inputs):
            _check_name(name, (*location, key))
        wrapped = frozenset(name for name, value in inputs.items() if _is_wrapped(value))
        if wrapped:
            inputs = {
                name: _unwrapped(value, (*location, key, "inputs", name))
                if name in wrapped
                else value
                for name, value in inputs.items()
            }
        nodes[key] = Node(key, kind, inputs, node.get("mode") in _MUTED, wrapped)
    return nodes


def _is_wrapped(value: Any) -> bool:
    return isinstance(value, dict) and _WRAPPER in value


def _unwrapped(value: dict[str, Any], location: Location) -> Any:
    """What ComfyUI takes for an input in a wrapper. Its page sends lists so, which are no links."""
    inner, kind = value[_WRAPPER], value.get(_WRAPPED_TYPE, "any")
    alone = set(value) <= {_WRAPPER, _WRAPPED_TYPE}
    typed = isinstance(kind, str) and _TYPE.fullmatch(kind)
    if not alone or not typed or is_link(inner) or _is_wrapped(inner):
        raise unreadable(
            f"{place_of(*location)} holds {_WRAPPER} with a link, another {_WRAPPER} or further "
            "members, which servers take in different ways.",
            "Send the value itself, or a list alone in it.",
        )
    return inner


def _check_name(name: str, location: Location) -> None:
    """Names are looked at again and again, so long ones would make a request costly."""
    if len(name) > _MAX_NAME_CHARS:
        raise unreadable(
            f"{place_of(*location)} has a name of more than {_MAX_NAME_CHARS} characters.",
            "Send the graph as ComfyUI exports it.",
        )


def is_link(value: Any) -> bool:
    """Whether ComfyUI takes the value of an input from another node."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
        and abs(value[1]) < _MOST_OUTPUTS  # so NaN, with which no server runs a graph, is none
    )


def strings_of(
    value: Any,
    names: tuple[str, ...],
    holder: Mapping[str, Any],
    location: Location,
    around: tuple[Mapping[str, Any], ...] = (),
) -> Iterator[Value]:
    """Every string below an input, but for the names of members.

    Raises:
        RefusedRequestError: for a member with a long name, or with a tag in it.
    """
    if isinstance(value, str):
        yield Value(value, names, holder, location, around)
    elif isinstance(value, list):
        numbers = tuple(one for one in value if type(one) in (int, float))
        for number, item in enumerate(value):
            where = (*location, number)
            if isinstance(item, str):
                yield Value(item, names, holder, where, around, numbers)
            else:
                yield from strings_of(item, names, holder, where, around)
    elif isinstance(value, dict):
        for name, item in value.items():
            _check_name(name, location)
            if "<" in name and ":" in name:
                # Where a node takes a text, ComfyUI writes the object out, names and all.
                raise unnamed(
                    place_of(*location), "has a member whose name may be a tag.", "Send a text."
                )
            yield from strings_of(item, (*names, name), value, (*location, name), (holder, *around))


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
            return value, node.at(name)
        else:
            break
    raise unnamed(
        place,
        "is linked to a node that makes it while the graph runs.",
        "Write the value into the node.",
    )


def is_for_people(node: Node, name: str) -> bool:
    """Whether a text repeats for people what a list beside it says, and no server reads it."""
    return name == "text" and "loras" in node.inputs and node.class_type in LISTS


def is_plot(node: Node) -> bool:
    """Whether a node hands on each of its LoRAs at strengths of its own, and at common ones."""
    return node.class_type == _PLOT


def is_unused(node: Node, name: str) -> bool:
    """Whether a node does not look at an input in the mode in which it is."""
    mode = node.inputs.get("input_mode")
    in_plot = is_plot(node) and name == "batch_path"
    return in_plot and isinstance(mode, str) and "Batch" not in mode


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
