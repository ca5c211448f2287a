"""Writes adapter files as other tools write them, and loads them as other tools load them.

The weights are random and nothing in them is zero; ranks differ from alphas. Every `Case` holds
the file, the reference (a second pipeline with the adapter in it) and the strength of use.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import (
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
)
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from loragate_server.adapter.reference import Strength
from testkit.tiny_models import tiny_pipeline

STRENGTH = Strength(denoiser=0.7, text_encoder=0.4)
ATTENTION = r".*\.(to_q|to_k|to_v|to_out\.0|add_k_proj|add_q_proj|to_add_out)"
UNET_MIXED = ATTENTION + r"|.*\.(ff\.net\.0\.proj|ff\.net\.2|proj_in|proj_out)"
UNET_CONV = UNET_MIXED + r"|.*\.(conv1|conv2|conv_shortcut|conv)|conv_in|conv_out|.*time_emb_proj"
TRANSFORMER = ATTENTION + r"|.*\.(ff\.net\.0\.proj|ff\.net\.2|ff_context\.net\.0\.proj|proj_mlp)"
TEXT = r".*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


@dataclass(frozen=True)
class Case:
    """An adapter on disk and the pipeline that another tool has put it into.

    Attributes:
        file: the weights, in safetensors.
        config_json: what lies beside it as `adapter_config.json`, or None.
        reference: a pipeline that has loaded it at `strength`.
        loader: whose reading is compared; empty for the one that knows such a file best.
    """

    file: Path
    config_json: str | None
    reference: Any
    strength: Strength
    loader: str = ""


def donor(family: str, component: str, config: Any, seed: int = 7) -> tuple[nn.Module, Any]:
    """A component of a fresh pipeline with a random adapter in it, and that pipeline."""
    pipeline = tiny_pipeline(family)
    module = getattr(pipeline, component)
    inject_adapter_in_model(config, module, "donor")
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        if ".donor" not in name:
            continue
        if "magnitude" in name:
            parameter.data *= 1 + 0.2 * torch.rand(parameter.shape, generator=generator)
        else:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
    return module, pipeline


def adapter_state(module: nn.Module) -> dict[str, Tensor]:
    """The adapter's tensors in peft's names."""
    state = get_peft_model_state_dict(module, adapter_name="donor")
    return {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}


def lora(targets: str, **options: Any) -> LoraConfig:
    """A LoRA of rank 4 and alpha 6."""
    return LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": targets} | options)


def save(folder: Path, tensors: Mapping[str, Tensor], metadata: Any = None) -> Path:
    """Writes one file in safetensors; `metadata` goes where diffusers puts its own."""
    folder.mkdir(parents=True, exist_ok=True)
    header = {"format": "pt"}
    if metadata is not None:
        header["lora_adapter_metadata"] = json.dumps(metadata, indent=2, sort_keys=True)
    path = folder / "adapter.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, header)
    return path


def loaded_by_diffusers(family: str, file: Path, strength: Strength = STRENGTH) -> Case:
    """The case in which `load_lora_weights` reads the file and `set_adapters` sets the strength."""
    pipeline = tiny_pipeline(family)
    pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name="audited")
    weights: dict[str, float] = {}
    for component in pipeline._lora_loadable_modules:
        if any(isinstance(m, BaseTunerLayer) for m in getattr(pipeline, component).modules()):
            denoiser = component in ("unet", "transformer")
            weights[component] = strength.denoiser if denoiser else strength.text_encoder
    pipeline.set_adapters(["audited"], adapter_weights=[weights])
    return Case(file, None, pipeline, strength)


def set_strength(module: nn.Module, adapter: str, strength: float) -> None:
    """What `set_adapters` does, for a module that peft has adapted."""
    for layer in module.modules():
        if isinstance(layer, BaseTunerLayer):
            layer.set_scale(adapter, strength)


# Names.


def kohya_names(
    state: Mapping[str, Tensor],
    prefix: str,
    alpha: Callable[[str], float],
    rename: Callable[[str], str],
) -> dict[str, Tensor]:
    """Underscore names of kohya's scripts and of LyCORIS, with one alpha per layer."""
    written: dict[str, Tensor] = {}
    for name, tensor in state.items():
        for ours, theirs in (
            ("lora_A.weight", "lora_down.weight"),
            ("lora_B.weight", "lora_up.weight"),
        ):
            name = name.replace(ours, theirs)
        module, part = _split(name)
        layer = f"{prefix}_{rename(module).replace('.', '_')}"
        written[f"{layer}.{part}"] = tensor
        written[f"{layer}.alpha"] = torch.tensor(float(alpha(module)))
    return written


def sgm_module(layers_per_block: int) -> Callable[[str], str]:
    """Names of the SDXL UNet in its original code, from diffusers' names."""
    parts = {
        "conv1": "in_layers.2",
        "conv2": "out_layers.3",
        "time_emb_proj": "emb_layers.1",
        "conv_shortcut": "skip_connection",
    }
    inner = {"resnets": 0, "attentions": 1}

    def rename(module: str) -> str:
        words = module.split(".")
        if words[0] == "conv_in":
            return "input_blocks.0.0"
        if words[0] == "conv_out":
            return "out.2"
        if words[0] == "mid_block":
            place = 1 if words[1] == "attentions" else 2 * int(words[2])
            return ".".join(["middle_block", str(place), *(parts.get(w, w) for w in words[3:])])
        block, kind, index = int(words[1]), words[2], int(words[3])
        rest = [parts.get(word, word) for word in words[4:]]
        if words[0] == "down_blocks":
            if kind == "downsamplers":
                return f"input_blocks.{(block + 1) * (layers_per_block + 1)}.0.op"
            place = block * (layers_per_block + 1) + index + 1
            return ".".join(["input_blocks", str(place), str(inner[kind]), *rest])
        if kind == "upsamplers":
            last = block * (layers_per_block + 1) + layers_per_block
            return f"output_blocks.{last}.2.conv"
        place = block * (layers_per_block + 1) + index
        return ".".join(["output_blocks", str(place), str(inner[kind]), *rest])

    return rename


def same(module: str) -> str:
    """Keeps a module's name."""
    return module


def old_diffusers_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Attention-processor names of the first diffusers LoRAs."""
    written = {}
    for name, tensor in state.items():
        module, part = _split(name)
        parent, _, leaf = module.removesuffix(".0").rpartition(".")
        end = "down" if part.startswith("lora_A") else "up"
        written[f"{parent}.processor.{leaf}_lora.{end}.weight"] = tensor
    return written


def text_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """With the `text_model.` that CLIP text encoders had in every released LoRA."""
    return {
        name
        if name.startswith(("text_model.", "text_projection"))
        else f"text_model.{name}": tensor
        for name, tensor in state.items()
    }


def prefixed(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Every name with `prefix` and a dot in front."""
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def _split(name: str) -> tuple[str, str]:
    for end in (".weight", ".bias"):
        if name.endswith(end):
            module, part = name.removesuffix(end).rsplit(".", 1)
            return module, part + end
    module, part = name.rsplit(".", 1)
    return module, part


# Folders that peft saves, and LyCORIS kinds that only peft can load.


def saved_by_peft(family: str, component: str, config: Any, folder: Path) -> Case:
    """`PeftModel.save_pretrained`, loaded again with `PeftModel.from_pretrained`."""
    pipeline = tiny_pipeline(family)
    model = get_peft_model(getattr(pipeline, component), config)
    generator = torch.Generator().manual_seed(11)
    for name, parameter in model.named_parameters():
        if ".default" in name and "magnitude" not in name:
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=generator)
        elif ".default" in name:
            parameter.data *= 1.2
    model.save_pretrained(folder)
    reference = tiny_pipeline(family)
    loaded = PeftModel.from_pretrained(getattr(reference, component), folder)
    denoiser = component in ("unet", "transformer")
    set_strength(loaded, "default", STRENGTH.denoiser if denoiser else STRENGTH.text_encoder)
    config_json = (folder / "adapter_config.json").read_text()
    return Case(folder / "adapter_model.safetensors", config_json, reference, STRENGTH)


def lycoris(
    family: str,
    config: LoHaConfig | LoKrConfig,
    folder: Path,
    rename: Callable[[str], str] = same,
) -> Case:
    """A LoHa or LoKr in kohya's names; the reference is the model that peft made it in."""
    component = "unet" if family in ("sd", "sdxl") else "transformer"
    module, pipeline = donor(family, component, config)
    set_strength(module, "donor", STRENGTH.denoiser)
    tensors = kohya_names(adapter_state(module), "lora_unet", lambda _: config.alpha, rename)
    return Case(save(folder, tensors), None, pipeline, STRENGTH)
