"""ComfyUI's own templates, as their package holds them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from testkit.comfyui_prompts import as_prompt

PACKAGE = "comfyui_workflow_templates_json"
_WELL_KNOWN = frozenset({"LoraLoader", "LoraLoaderModelOnly"})


def installed() -> bool:
    """Whether the package is there; it comes with the other requirements of the tests."""
    return find_spec(PACKAGE) is not None


@cache
def names() -> Sequence[str]:
    """Of all templates. The package holds indexes and options beside them."""
    return [path.stem for path in sorted(_folder().glob("*.json")) if _workflow(path) is not None]


@cache
def prompt(name: str) -> dict[str, Any]:
    """What the page sends when somebody opens a template and queues it."""
    workflow = _workflow(_folder() / f"{name}.json")
    if workflow is None:
        raise ValueError(f"{name} is no template")
    sent = {"extra_pnginfo": {"workflow": workflow}}
    return {"prompt": as_prompt(workflow), "client_id": "7f3e", "extra_data": sent}


def loras(name: str) -> dict[str, set[float]]:
    """The LoRAs of a template, with the strengths that its loaders give them for either model.

    Raises:
        ValueError: a node of LoRAs is not one of ComfyUI's two loaders.
    """
    found: dict[str, set[float]] = {}
    for node in prompt(name)["prompt"].values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind in _WELL_KNOWN:
            given = (inputs.get(one) for one in ("strength_model", "strength_clip"))
            strengths = {float(one) for one in given if one}
            found.setdefault(inputs["lora_name"], set()).update(strengths)
        elif "lora" in kind.casefold() and "lora_name" in inputs:
            raise ValueError(f"{name}: {kind}")
    return found


def spread(count: int) -> list[str]:
    """As many templates, from all over the package."""
    every = names()
    return [every[number * len(every) // count] for number in range(count)]


def _folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ImportError(f"{PACKAGE} is not installed")
    return Path(spec.origin).with_name("templates")


def _workflow(path: Path) -> dict[str, Any] | None:
    document = json.loads(path.read_text())
    return document if isinstance(document, dict) and "nodes" in document else None
