"""A small ComfyUI: runs a graph from its outputs back, and says which LoRAs samplers apply."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.active_sets import Applied

Patched = Counter[str]
"""A model: how strongly each LoRA was applied to it, summed up."""


def _scaled(model: Patched, times: float) -> Patched:
    return Counter({name: force * times for name, force in model.items()})


def _both(one: Patched, other: Patched) -> Patched:
    return Counter({name: one[name] + other[name] for name in {*one, *other}})


class _Run:
    def __init__(self, graph: dict[str, Any]) -> None:
        self.graph = graph
        self.sampled: list[tuple[Patched, Patched]] = []

    def value(self, link: Any) -> Any:
        outputs = self.node(link[0])
        return outputs[link[1]]

    def node(self, key: str) -> tuple[Any, ...]:
        kind, inputs = self.graph[key]["class_type"], self.graph[key]["inputs"]
        name = inputs.get("lora_name", "").removesuffix(".safetensors")
        if kind == "CheckpointLoaderSimple":
            return Counter(), Counter(), None
        if kind == "LoraLoader":
            model = _both(self.value(inputs["model"]), Counter({name: inputs["strength_model"]}))
            clip = _both(self.value(inputs["clip"]), Counter({name: inputs["strength_clip"]}))
            return model, clip
        if kind == "LoraLoaderModelOnly":
            force = Counter({name: inputs["strength_model"]})
            return (_both(self.value(inputs["model"]), force),)
        if kind == "ModelSamplingSD3":
            return (self.value(inputs["model"]),)
        if kind == "ModelMergeSimple":
            one, other = self.value(inputs["model1"]), self.value(inputs["model2"])
            ratio = inputs["ratio"]
            return (_both(_scaled(one, ratio), _scaled(other, 1 - ratio)),)
        if kind == "ModelSwitch":
            return (self.value(inputs[f"input{inputs['select']}"]),)
        if kind == "CLIPTextEncode":
            return (self.value(inputs["clip"]),)
        if kind == "BasicGuider":
            return ((self.value(inputs["model"]), [self.value(inputs["conditioning"])]),)
        if kind == "KSampler":
            conditions = [self.value(inputs[one]) for one in ("positive", "negative")]
            self.sample(self.value(inputs["model"]), conditions)
        if kind == "SamplerCustomAdvanced":
            self.sample(*self.value(inputs["guider"]))
        for one in ("latent_image", "samples", "images"):
            if one in inputs:
                self.value(inputs[one])
        return (None,)

    def sample(self, model: Patched, conditions: list[Patched]) -> None:
        self.sampled += [(model, condition) for condition in conditions]


def comfyui(request: HttpRequest) -> Iterator[list[Applied]]:
    run = _Run(json.loads(request.body)["prompt"])
    for key, node in run.graph.items():
        if node["class_type"] == "SaveImage":
            run.node(key)
    for model, clip in run.sampled:
        yield [(name, model[name], clip[name]) for name in {*model, *clip}]
