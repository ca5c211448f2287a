"""Models and the prompt server of ComfyUI, as far as the node pack meets them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

PACK = "loragate.integrations.comfyui"


class Model:
    """As a ModelPatcher: clones keep options and patches."""

    def __init__(self) -> None:
        self.model_options: dict[str, Any] = {"transformer_options": {}}
        self.patches: list[Any] = []

    def clone(self) -> Model:
        other = Model()
        other.model_options = dict(self.model_options)
        other.patches = list(self.patches)
        return other


class Clip:
    """As ComfyUI's CLIP, which holds a patcher."""

    def __init__(self) -> None:
        self.patcher = Model()

    def clone(self) -> Clip:
        other = Clip()
        other.patcher = self.patcher.clone()
        return other


class PromptServer:
    instance: Any

    def __init__(self) -> None:
        self.handlers: list[Callable[[Any], Any]] = []

    def add_on_prompt_handler(self, handler: Callable[[Any], Any]) -> None:
        self.handlers.append(handler)

    def post_prompt(self, json_data: Any) -> tuple[int, str]:
        """Runs the handlers as ComfyUI does, then validates the graph."""
        for handler in self.handlers:
            try:
                json_data = handler(json_data)
            except Exception:
                continue
        mappings = sys.modules[PACK].NODE_CLASS_MAPPINGS
        for node in json_data["prompt"].values():
            known = mappings.get(node["class_type"])
            if known is not None and hasattr(known, "VALIDATE_INPUTS"):
                assert known.OUTPUT_NODE
                assert "partial_execution_targets" not in json_data
                verdict = known.VALIDATE_INPUTS(**node["inputs"])
                if verdict is not True:
                    return 400, verdict
        return 200, "queued"
