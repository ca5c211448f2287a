"""Puts fresh adapter layers of any kind into a pipeline, and writes them as users find them."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from diffusers.training_utils import cast_training_params
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import LoHaConfig, LoKrConfig, LoraConfig, PeftConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from emoji_tiny.recipe import LoraRecipe

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
CONVOLUTIONS = ("conv1", "conv2")


def _config(recipe: LoraRecipe) -> PeftConfig:
    usual = TEXT_ATTENTION if recipe.part == "text_encoder" else ATTENTION
    targets = list(recipe.target_modules or usual)
    if recipe.kind in ("loha", "lokr"):
        kind = LoHaConfig if recipe.kind == "loha" else LoKrConfig
        return kind(r=recipe.rank, alpha=recipe.alpha, target_modules=targets)
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        target_modules=targets,
        init_lora_weights="gaussian",
        use_dora=recipe.kind == "dora",
    )


def _trained_part(pipeline: StableDiffusionPipeline, recipe: LoraRecipe) -> torch.nn.Module:
    part: torch.nn.Module = (
        pipeline.text_encoder if recipe.part == "text_encoder" else pipeline.unet
    )
    return part


def attach(pipeline: StableDiffusionPipeline, recipe: LoraRecipe) -> list[torch.nn.Parameter]:
    """Adds fresh adapter layers to the part that is trained; returns the parameters to train."""
    pipeline.unet.requires_grad_(False)
    pipeline.text_encoder.requires_grad_(False)
    part = _trained_part(pipeline, recipe)
    part.add_adapter(_config(recipe))  # type: ignore[operator]
    cast_training_params(part, dtype=torch.float32)
    return [parameter for parameter in part.parameters() if parameter.requires_grad]


_KOHYA = {"denoiser": "lora_unet", "text_encoder": "lora_te_text_model"}
"""What kohya's names begin with, by the part that is trained."""


def kohya_names(
    state: dict[str, torch.Tensor], alpha: float, part: str = "denoiser"
) -> dict[str, torch.Tensor]:
    """peft's names to those that kohya's trainers write, with one alpha per layer."""
    named = {}
    for name, value in state.items():
        module, side = name.removesuffix(".weight").rsplit(".lora_", 1)
        prefix = f"{_KOHYA[part]}_{module.replace('.', '_')}"
        named[f"{prefix}.lora_{'down' if side == 'A' else 'up'}.weight"] = value
        named[f"{prefix}.alpha"] = torch.tensor(alpha, dtype=torch.float16)
    return named


def lycoris_names(state: dict[str, torch.Tensor], alpha: float) -> dict[str, torch.Tensor]:
    """peft's names of LoHa and LoKr factors to those of LyCORIS."""
    named = {}
    for name, value in state.items():
        module, factor = name.rsplit(".", 1)
        prefix = f"lora_unet_{module.replace('.', '_')}"
        named[f"{prefix}.{factor}"] = value
        named[f"{prefix}.alpha"] = torch.tensor(alpha, dtype=torch.float16)
    return named


def save(pipeline: StableDiffusionPipeline, recipe: LoraRecipe, path: Path) -> None:
    """Writes the adapter as one fp16 safetensors file in the format of the recipe."""
    part = _trained_part(pipeline, recipe)
    state = get_peft_model_state_dict(part)
    state = {name: value.to(torch.float16).contiguous() for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if recipe.kind in ("loha", "lokr"):
        metadata = {"ss_network_module": "lycoris.kohya", "ss_output_name": recipe.name}
        save_file(lycoris_names(state, recipe.alpha), path, metadata=metadata)
        return
    if recipe.file_format == "kohya":
        metadata = {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(recipe.rank),
            "ss_network_alpha": str(recipe.alpha),
            "ss_output_name": recipe.name,
        }
        save_file(kohya_names(state, recipe.alpha, recipe.part), path, metadata=metadata)
        return
    config = part.peft_config["default"].to_dict()  # type: ignore[union-attr,index]
    told = config if recipe.alpha != recipe.rank or recipe.kind == "dora" else None
    layers = convert_state_dict_to_diffusers(state)
    text = recipe.part == "text_encoder"
    StableDiffusionPipeline.save_lora_weights(
        path.parent,
        unet_lora_layers=None if text else layers,
        text_encoder_lora_layers=layers if text else None,
        weight_name=path.name,
        safe_serialization=True,
        unet_lora_adapter_metadata=None if text else told,
        text_encoder_lora_adapter_metadata=told if text else None,
    )
