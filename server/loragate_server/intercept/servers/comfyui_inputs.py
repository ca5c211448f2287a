"""Which inputs of ComfyUI's nodes name a LoRA."""

from __future__ import annotations

import re
from collections.abc import Container

from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.reading.references import looks_like_weights
from loragate_server.intercept.servers.comfyui_graph import Node, Value
from loragate_server.intercept.servers.comfyui_request import Graph
from loragate_server.intercept.servers.comfyui_tags import (
    LORA_MANAGER,
    RGTHREE,
    grammar_of,
    is_lora_class,
)
from loragate_server.intercept.servers.comfyui_words import is_none, says_how

_NAMES_FILE = re.compile(r"(^|_)(name|path|file|url|uri|air|repo|source|model|id|weights)$|[0-9]$")
# How fields of forms are called, in nodes that have LoRA in their class.
_LABELS = frozenset({"input_id", "display_name", "description"})
_UNREAD = frozenset(
    {
        ("Select to add LoRA", "Select the LoRA to add to the text"),
        ("insert_lora", "CHOOSE"),
        ("insert_lora", "DISABLE LORAS"),
    }
)
"""What the pages of Impact Pack and rgthree send for lists that only they read."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def may_take_name(node: Node, name: str) -> bool:
    """Whether an input that comes by a link may hold the name of a LoRA."""
    if speaks_of_lora(name):
        return True
    in_lora_node = is_lora_class(node.class_type) and _NAMES_FILE.search(name)
    return bool(in_lora_node) and name != "model"


def names_adapter(one: Value, node: Node, graph: Graph, model_inputs: Container[str]) -> bool:
    """Whether a string names a LoRA: by its name, its node, or what it looks like.

    Args:
        one: the string.
        node: that holds it.
        graph: whose other models are known.
        model_inputs: inputs that hold files of other models; or `Class.input` for one class.
    """
    text, key = one.text.strip(), one.names[-1]
    if is_none(text):
        return _is_looked_up(one, node, graph)
    if (key, text) in _UNREAD:
        return False
    if key in model_inputs or f"{node.class_type}.{one.names[0]}" in model_inputs:
        return looks_like_weights(text) and (text.lower().startswith("urn:air:") or "://" in text)
    if looks_like_weights(text):
        return not graph.other_models.hold(node, one.names, text)
    if any(begin in text.casefold() for begin in ("<lora:", "<lyco:", "<loractl:")):
        return False
    if any(map(speaks_of_lora, one.names)):
        return not says_how(key) and not isinstance(one.holder.get(key), bool)
    in_lora_node = is_lora_class(node.class_type)
    if in_lora_node and _ADDRESS.match(text):
        return True
    named = _NAMES_FILE.search(key) and key not in _LABELS
    return in_lora_node and bool(named) and not says_how(key)


def _is_looked_up(one: Value, node: Node, graph: Graph) -> bool:
    """Whether a pack finds a file for what says to others that there is none.

    rgthree takes any part of a path, so "" is the first file of all.
    """
    grammar = grammar_of(node.class_type)
    if grammar not in (LORA_MANAGER, RGTHREE) or one.names[-1] not in ("lora", "name"):
        return False
    return bool(graph.files.meant_by(one.text, grammar.resolvers))
