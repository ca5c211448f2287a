"""Whether a graph of ComfyUI with LoRAs loads the base model that they are audited for."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from loragate_server.intercept.reading.bases import refuse_other_base
from loragate_server.intercept.refusals import place_of
from loragate_server.intercept.servers.comfyui_graph import Node, is_link, resolved
from loragate_server.intercept.servers.comfyui_links import place_in
from loragate_server.intercept.servers.comfyui_models import is_no_base

_BASE = re.compile(
    r"((ckpt|checkpoint|unet|diffusion_model|transformer|base_model)|^model)"
    r"(_?(name|path|file))?_?[0-9]*$",
    re.IGNORECASE,
)
"""Inputs that say which base model is loaded."""
_OTHER_MODEL = re.compile(
    r"upscale|detect|sam|control|clip|vae|ipadapter|face|depth|segment|caption|llm", re.IGNORECASE
)
"""Classes of nodes whose `model` is none that a LoRA changes."""


def refuse_other_bases(nodes: Mapping[str, Node], name: str, base_names: Collection[str]) -> None:
    """Refuses a graph that loads a base model that the operator has not listed.

    Args:
        nodes: of the graph.
        name: of the graph in the request.
        base_names: what the audited base may be called; empty where that is not looked at.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS, or ADAPTER_UNNAMED for a name that is made while the
            graph runs.
    """
    for node in nodes.values() if base_names else ():
        for key, value in node.inputs.items():
            if not _BASE.search(key) or is_no_base(node.class_type, key):
                continue
            if _is_plain(key) and _OTHER_MODEL.search(node.class_type):
                continue
            if is_link(value):
                if "name" not in key.casefold():
                    continue  # a model, whose loader is looked at
                value, _ = resolved(value, nodes, place_in(node, key))
            if isinstance(value, str | list):
                refuse_other_base(value, place_of(name, node.key, "inputs", key), base_names)


def _is_plain(key: str) -> bool:
    return key.casefold().startswith("model")
