"""Writes `data/mixes.json`: which activations of real models the kernels have to read.

python -m benchmarks.kernels.derive_mixes

The models are diffusers' own classes at the published sizes, on the meta device: one forward
pass without weights, with the hooks of the layer profile in place. Machines that measure need
neither diffusers nor this module.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from types import MappingProxyType
from typing import Any

import torch
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel
from torch import nn

from benchmarks.kernels.mixes import DATA
from loragate_server.audit.profile import profiled_layers

PROJECTION = re.compile(r"\.(to_q|to_k|to_v|to_out\.0|add_[qkv]_proj|to_add_out)$")
"""Attention projections: what LoRA trainers adapt unless told otherwise."""


def sd15() -> tuple[nn.Module, dict[str, Any]]:
    """Stable Diffusion 1.5, 512 x 512: the defaults of the class but for the text width."""
    model = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return model, {
        "sample": torch.empty(1, 4, 64, 64),
        "timestep": torch.empty(1),
        "encoder_hidden_states": torch.empty(1, 77, 768),
    }


def sdxl() -> tuple[nn.Module, dict[str, Any]]:
    """SDXL base 1.0, 1024 x 1024."""
    model = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=[1, 2, 10],
        attention_head_dim=[5, 10, 20],
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    return model, {
        "sample": torch.empty(1, 4, 128, 128),
        "timestep": torch.empty(1),
        "encoder_hidden_states": torch.empty(1, 77, 2048),
        "added_cond_kwargs": {
            "text_embeds": torch.empty(1, 1280),
            "time_ids": torch.empty(1, 6),
        },
    }


def sd3() -> tuple[nn.Module, dict[str, Any]]:
    """Stable Diffusion 3 medium, 1024 x 1024."""
    model = SD3Transformer2DModel(
        sample_size=128,
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=24,
        attention_head_dim=64,
        num_attention_heads=24,
        joint_attention_dim=4096,
        caption_projection_dim=1536,
        pooled_projection_dim=2048,
        pos_embed_max_size=192,
    )
    return model, {
        "hidden_states": torch.empty(1, 16, 128, 128),
        "encoder_hidden_states": torch.empty(1, 333, 4096),
        "pooled_projections": torch.empty(1, 2048),
        "timestep": torch.empty(1),
    }


def flux() -> tuple[nn.Module, dict[str, Any]]:
    """Flux.1 dev, 1024 x 1024: the defaults of the class, with embedded guidance."""
    model = FluxTransformer2DModel(guidance_embeds=True)
    return model, {
        "hidden_states": torch.empty(1, 4096, 64),
        "encoder_hidden_states": torch.empty(1, 512, 4096),
        "pooled_projections": torch.empty(1, 768),
        "timestep": torch.empty(1),
        "guidance": torch.empty(1),
        "img_ids": torch.empty(4096, 3),
        "txt_ids": torch.empty(512, 3),
    }


MODELS = MappingProxyType({"sd15": sd15, "sdxl": sdxl, "sd3": sd3, "flux": flux})


def derive(make: Callable[[], tuple[nn.Module, dict[str, Any]]]) -> dict[str, list[Any]]:
    """The layers and the projections of one model, equal ones counted instead of repeated."""
    layers: dict[tuple[int, ...], list[Any]] = {}
    projections: dict[tuple[int, ...], list[Any]] = {}
    with torch.device("meta"), torch.inference_mode():
        model, inputs = make()
        for name, module in profiled_layers(model).items():
            module.register_forward_hook(_layer_hook(layers, name))
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear) and PROJECTION.search(name):
                module.register_forward_hook(_projection_hook(projections, name))
        model(**inputs)
    return {
        "layers": [[name, list(key), count] for key, (name, count) in layers.items()],
        "projections": [[name, *key, count] for key, (name, count) in projections.items()],
    }


def _layer_hook(found: dict[tuple[int, ...], list[Any]], name: str) -> Any:
    def note(_module: nn.Module, _inputs: Any, output: Any) -> None:
        tensor = output[-1] if isinstance(output, tuple) else output
        found.setdefault(tuple(tensor.shape[1:]), [name, 0])[1] += 1

    return note


def _projection_hook(found: dict[tuple[int, ...], list[Any]], name: str) -> Any:
    def note(module: nn.Linear, inputs: Any, _output: Any) -> None:
        key = (module.in_features, module.out_features, inputs[0][0].numel() // module.in_features)
        found.setdefault(key, [name, 0])[1] += 1

    return note


def main() -> None:
    """Derives every model and writes the file."""
    derived = {name: derive(make) for name, make in MODELS.items()}
    comment = (
        "Per model, for one picture: layers are [first of its kind, shape without batch, count]; "
        "projections are [first of its kind, inputs, outputs, tokens, count]."
    )
    parts = [f' "comment": {json.dumps(comment)}', f' "diffusers": "{version("diffusers")}"']
    for name, lists in derived.items():
        rows = [
            f'  "{kind}": [\n   ' + ",\n   ".join(map(json.dumps, entries)) + "\n  ]"
            for kind, entries in lists.items()
        ]
        parts.append(f' "{name}": {{\n' + ",\n".join(rows) + "\n }")
    DATA.parent.mkdir(exist_ok=True)
    DATA.write_text("{\n" + ",\n".join(parts) + "\n}\n")


if __name__ == "__main__":
    main()
