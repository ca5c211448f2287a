"""Requests that name a LoRA twice: once to be applied, and once more where no server applies it."""

from __future__ import annotations

from typing import Any

PATH = "/loras/bomb.safetensors"
"""The LoRA that every request here makes its server apply at 1; the decoy has it at -1."""


def loader(name: str, strength: float, model: str = "4", **more: Any) -> dict[str, Any]:
    inputs = {"model": [model, 0], "clip": [model, 1], "lora_name": f"{name}.safetensors"}
    forces = {"strength_model": strength, "strength_clip": strength}
    return {"class_type": "LoraLoader", "inputs": {**inputs, **forces}, **more}


def drawn_from(model: str, **more: Any) -> dict[str, Any]:
    """A graph that draws a picture with the model and the text encoder of one node."""
    return {
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "b.safetensors"}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": [model, 1], "text": "a"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64}},
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "model": [model, 0],
                "positive": ["6", 0],
                "negative": ["6", 0],
                "latent_image": ["5", 0],
                "cfg": 7,
            },
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}},
        **more,
    }


DECOYS: dict[str, tuple[str, Any]] = {
    "an unlinked loader": (
        "comfyui",
        {"prompt": drawn_from("1", **{"1": loader("bomb", 1.0), "2": loader("bomb", -1.0)})},
    ),
    "a loader that is muted": (
        "comfyui",
        {
            "prompt": drawn_from(
                "1", **{"1": loader("bomb", 1.0, "2"), "2": loader("bomb", -1.0, mode=4)}
            )
        },
    ),
    "a loader behind the sampler": (
        "comfyui",
        {"prompt": drawn_from("1", **{"1": loader("bomb", 1.0), "2": loader("bomb", -1.0, "1")})},
    ),
    "a loader for another sampler": (
        "comfyui",
        {
            "prompt": drawn_from(
                "1",
                **{
                    "1": loader("bomb", 1.0),
                    "2": loader("bomb", -1.0, "1"),
                    "7": {"class_type": "KSampler", "inputs": {"model": ["2", 0]}},
                },
            )
        },
    ),
    "a graph beside the graph": (
        "comfyui",
        {
            "prompt": drawn_from("1", **{"1": loader("bomb", 1.0)}),
            "workflow_api": drawn_from("1", **{"1": loader("bomb", -1.0)}),
        },
    ),
    "a tag in a plain text": (
        "comfyui",
        {
            "prompt": drawn_from(
                "1",
                **{
                    "1": loader("bomb", 1.0),
                    "6": {
                        "class_type": "CLIPTextEncode",
                        "inputs": {"clip": ["1", 1], "text": "<lora:bomb:-1>"},
                    },
                },
            )
        },
    ),
    "a negative prompt": (
        "a1111",
        {"prompt": "<lora:bomb:1>", "negative_prompt": "<lora:bomb:-1>"},
    ),
    "an unknown field": ("a1111", {"prompt": "<lora:bomb:1>", "zz": "<lora:bomb:-1>"}),
    "a second pass that is off": (
        "a1111",
        {"prompt": "<lora:bomb:1>", "hr_prompt": "<lora:bomb:1><lora:bomb:-1>"},
    ),
    "a tag in other letters": ("a1111", {"prompt": "<lora:bomb:1><LoRA:bomb:-1>"}),
    "a tag without a number": ("a1111", {"prompt": "<lora:bomb:-1><lora:bomb>"}),
    "a name with a folder": ("a1111", {"prompt": "<lora:bomb:1><lora:/loras/bomb.safetensors:-1>"}),
    "an option that is no setting": ("a1111", {"prompt": "<lora:bomb:-1>", "sd_lora": "bomb"}),
    "a tag that may be words": (
        "stable_diffusion_cpp",
        {"prompt": "<lora:bomb:-1>", "lora": [{"path": "bomb.safetensors"}]},
    ),
    "a LoRA for the other model": (
        "stable_diffusion_cpp",
        {
            "prompt": "a",
            "lora": [
                {"path": "bomb.safetensors"},
                {"path": "bomb.safetensors", "multiplier": -1, "is_high_noise": True},
            ],
        },
    ),
    "arguments beside a list": (
        "stable_diffusion_cpp",
        {
            "prompt": "<sd_cpp_extra_args>"
            '{"lora": [{"path": "/loras/bomb.safetensors", "multiplier": -1}]}'
            "</sd_cpp_extra_args>",
            "lora": [{"path": "bomb.safetensors"}],
        },
    ),
    "a negative half": ("localai", {"prompt": "<lora:bomb:1>|<lora:bomb:-1>"}),
    "another picture": ("localai", {"prompt": ["<lora:bomb:1>", "<lora:bomb:-1>"]}),
    "a nested lora": (
        "vllm_omni",
        {
            "lora": {"name": "a", "path": PATH},
            "junk": {"lora": {"name": "b", "path": PATH, "scale": -1}},
        },
    ),
    "a lora in other letters": (
        "vllm_omni",
        {
            "lora": {"name": "a", "path": PATH},
            "LORA": {"name": "b", "path": PATH, "scale": -1},
        },
    ),
    "a lora without a name": (
        "vllm_omni",
        {"lora": [{"name": "a", "path": PATH}, {"path": PATH, "scale": -1}]},
    ),
    "an unknown input": (
        "cog",
        {"input": {"lora_weights": PATH, "zz_lora": PATH, "zz_lora_scale": -1}},
    ),
    "an input of another model": (
        "cog",
        {"input": {"lora_weights": PATH, "extra_lora": PATH, "extra_lora_scale": -1}},
    ),
    "a strength that no model reads": (
        "cog",
        {"input": {"lora_weights": PATH, "LORA_SCALE": 0, "lora_strength": 0}},
    ),
    "the parameters of an input": (
        "kserve",
        {
            "inputs": [{"name": "x", "parameters": {"lora_path": PATH, "lora_scale": -1}}],
            "parameters": {"lora_path": PATH},
        },
    ),
    "another request of a batch": (
        "kserve",
        {"instances": [{"lora_path": PATH}, {"lora_path": PATH, "lora_scale": -1}]},
    ),
    "a strength of something else": (
        "kserve",
        {"parameters": {"lora_path": PATH, "guidance_scale": 0, "style_scale": 0}},
    ),
    "a second target": (
        "sglang",
        {
            "lora_nickname": ["a", "b"],
            "lora_path": [PATH, PATH],
            "strength": [1, -1],
            "target": ["transformer", "transformer_2"],
        },
    ),
    "a target beside all": (
        "sglang",
        {
            "lora_nickname": ["a", "b"],
            "lora_path": [PATH, PATH],
            "strength": [1, -1],
            "target": ["all", "critic"],
        },
    ),
    "a reference deeper down": (
        "declarative",
        {"lora": PATH, "junk": {"lora": PATH, "scale": -1}},
    ),
}
"""By what makes the decoy one: the server, and what it is sent."""
