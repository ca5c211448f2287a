"""Models and the prompt server of ComfyUI, as far as the node pack meets them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

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


def comfy_modules(loras: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """ComfyUI's modules; the pack is not there yet."""
    folder_paths, utils, lora, sd, server = (
        ModuleType(name)
        for name in ("folder_paths", "comfy.utils", "comfy.lora", "comfy.sd", "server")
    )

    def get_full_path(folder_name: str, filename: str) -> str | None:
        path = loras.parent / folder_name / filename
        return str(path) if path.is_file() else None

    def get_full_path_or_raise(folder_name: str, filename: str) -> str:
        path = folder_paths.get_full_path(folder_name, filename)
        if path is None:
            raise FileNotFoundError(filename)
        return path

    def load_torch_file(
        ckpt: str, safe_load: bool = False, device: Any = None, return_metadata: bool = False
    ) -> Any:
        tensors = load_file(ckpt)
        return (tensors, {}) if return_metadata else tensors

    def load_lora(lora: Any, to_load: Any, log_missing: bool = True) -> dict[str, Any]:
        return dict(lora)

    def load_lora_for_models(
        model: Any, clip: Any, lora_tensors: Any, strength_model: float, strength_clip: float
    ) -> tuple[Any, Any]:
        loaded = lora.load_lora(dict(lora_tensors), {})  # converted before, as newer versions do
        model, clip = model and model.clone(), clip and clip.clone()
        if model is not None:
            model.patches.append((loaded, strength_model))
        if clip is not None:
            clip.patcher.patches.append((loaded, strength_clip))
        return model, clip

    vars(folder_paths).update(
        get_full_path=get_full_path,
        get_full_path_or_raise=get_full_path_or_raise,
        get_folder_paths=lambda kind: [str(loras.parent / kind)],
        get_filename_list=lambda kind: sorted(
            path.relative_to(loras).as_posix() for path in loras.rglob("*.safetensors")
        ),
    )
    vars(utils)["load_torch_file"] = load_torch_file
    vars(lora)["load_lora"] = load_lora
    vars(sd)["load_lora_for_models"] = load_lora_for_models
    PromptServer.instance = PromptServer()
    vars(server)["PromptServer"] = PromptServer
    package = ModuleType("comfy")
    package.__path__ = []
    for module in (folder_paths, utils, lora, sd, server, package):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in [name for name in sys.modules if name.startswith(PACK)]:
        monkeypatch.delitem(sys.modules, name)
    return SimpleNamespace(
        folder_paths=folder_paths, utils=utils, lora=lora, sd=sd, server=PromptServer.instance
    )
