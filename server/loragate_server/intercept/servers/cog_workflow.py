"""Inputs of cog's models that hold a whole graph for ComfyUI, as a text or as an object."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.reading.bodies import BodyLimits, parse_json
from loragate_server.intercept.reading.lora_files import LoraFiles
from loragate_server.intercept.refusals import unnamed
from loragate_server.intercept.servers.comfyui import GRAPHS, ComfyUI

_NAMES = re.compile(r"workflow|comfy|graph")
_NODES = ("class_type", "widgets_values")
_REMEDY = "Leave LoRAs out of the workflow, or use a model with an input for them."


def is_workflow(name: str, value: Any, meant: Any) -> bool:
    """Whether an input holds a graph, by its name in small letters or by its nodes.

    Args:
        name: in small letters.
        value: as sent.
        meant: what `json_in` makes of it: names of members may be written with escapes.
    """
    if value in (None, "", {}, []):
        return False
    if _NAMES.search(name) and not isinstance(value, bool | int | float):
        return True
    if isinstance(meant, str):
        return meant.lstrip()[:1] in ("{", "[") and any(one in meant for one in _NODES)
    return _has_nodes(meant)


def json_in(value: Any) -> Any:
    """What a model gets that reads a text as JSON; the value itself where it is none."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def refuse_loras(value: Any, place: str, limits: BodyLimits) -> None:
    """Lets a graph pass that loads no LoRA. Where files lie is the model's secret.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED for a graph with a LoRA, or one that cannot be read.
    """
    if isinstance(value, str):
        if value.lstrip()[:1] not in ("{", "["):
            raise unnamed(place, "is no workflow that can be read here.", "Send it as JSON.")
        # As ComfyUI itself, which is Python.
        value = parse_json(value, replace(limits, infinite=True), f"Input {place}").value
    graph = ComfyUI(lora_folder="/")
    given = [
        name for name in GRAPHS if isinstance(value, dict) and isinstance(value.get(name), dict)
    ]
    try:
        # Graphs come bare, or as they are sent to ComfyUI.
        found = graph.adapters(value if given else {"prompt": value}, LoraFiles(""))
    except RefusedRequestError as error:
        raise unnamed(place, f"is a workflow that is not read: {error.message}", _REMEDY) from error
    if found:
        raise unnamed(place, "is a workflow that loads a LoRA from the model's own files.", _REMEDY)


def _has_nodes(value: Any) -> bool:
    level = [value]
    while level:
        one = level.pop()
        if isinstance(one, dict):
            if any(name in one for name in _NODES):
                return True
            level += one.values()
        elif isinstance(one, list):
            level += one
    return False
