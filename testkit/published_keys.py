"""Key maps as the loaders publish them, stated a second time for the tiny base models.

The server makes its tables from the layers of a base model. Here they come from the model's
configuration, by counting through the blocks as the loaders do, so that neither can repeat the
other's mistake. Here stand ComfyUI (comfy/lora.py, comfy/utils.py, comfy/weight_adapter/lora.py)
and Forge (packages_3rdparty/comfyui_lora_collection); `published_webuis` has the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_sd3_transformer_checkpoint_to_diffusers

from loragate_server.models.base import BaseModel

Layer = tuple[str, str]
Loaded = Callable[[str, str], set[Layer]]
"""Given the names of a down and an up tensor, the layers that change."""

_ATTENTION = ("proj_in", "proj_out")
_TRANSFORMER = (
    *(f"attn1.{end}" for end in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn2.{end}" for end in ("to_q", "to_k", "to_v", "to_out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
RESNET = (
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
)
BASIC = (
    ("input_blocks.0.0", "conv_in"),
    ("out.2", "conv_out"),
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("label_emb.0.0", "class_embedding.linear_1"),
    ("label_emb.0.2", "class_embedding.linear_2"),
    ("label_emb.0.0", "add_embedding.linear_1"),
    ("label_emb.0.2", "add_embedding.linear_2"),
)
CLIP = (*(f"self_attn.{x}_proj" for x in ("q", "k", "v", "out")), "mlp.fc1", "mlp.fc2")


def unet_map(config: Any) -> list[tuple[str, str]]:
    """Pairs of diffusers' and original names, counted through the blocks."""
    found = [(theirs, original) for original, theirs in BASIC]
    count = config.layers_per_block
    blocks = len(config.block_out_channels)
    depth = config.transformer_layers_per_block
    depths = [depth] * blocks if isinstance(depth, int) else list(depth)

    def attention(theirs: str, original: str, layers: int) -> None:
        found.extend((f"{theirs}.{each}", f"{original}.{each}") for each in _ATTENTION)
        for number in range(layers):
            middle = f"transformer_blocks.{number}"
            for each in _TRANSFORMER:
                found.append((f"{theirs}.{middle}.{each}", f"{original}.{middle}.{each}"))

    def resnet(theirs: str, original: str) -> None:
        found.extend((f"{theirs}.{b}", f"{original}.{a}") for a, b in RESNET)

    place = 1
    for block, kind in enumerate(config.down_block_types):
        for number in range(count):
            resnet(f"down_blocks.{block}.resnets.{number}", f"input_blocks.{place}.0")
            if "CrossAttn" in kind:
                theirs = f"down_blocks.{block}.attentions.{number}"
                attention(theirs, f"input_blocks.{place}.1", depths[block])
            place += 1
        found.append((f"down_blocks.{block}.downsamplers.0.conv", f"input_blocks.{place}.0.op"))
        place += 1
    attention("mid_block.attentions.0", "middle_block.1", depths[-1])
    for number, original in enumerate((0, 2)):
        resnet(f"mid_block.resnets.{number}", f"middle_block.{original}")
    place = 0
    for block, kind in enumerate(config.up_block_types):
        for number in range(count + 1):
            parts = 1
            resnet(f"up_blocks.{block}.resnets.{number}", f"output_blocks.{place}.0")
            if "CrossAttn" in kind:
                parts = 2
                theirs = f"up_blocks.{block}.attentions.{number}"
                attention(theirs, f"output_blocks.{place}.1", depths[blocks - 1 - block])
            if number == count:
                theirs = f"up_blocks.{block}.upsamplers.0.conv"
                found.append((theirs, f"output_blocks.{place}.{parts}.conv"))
            place += 1
    return found


def unet_originals(base: BaseModel) -> dict[str, str]:
    """Original name to the layer that the base model has for it."""
    own = {name for component, name in base.adaptable_modules() if component == "unet"}
    return {original: name for name, original in unet_map(base.denoiser.config) if name in own}


def clip_layers(base: BaseModel) -> dict[str, dict[str, str]]:
    """Component to names under `transformer.` in the original, and the layers."""
    found: dict[str, dict[str, str]] = {}
    for component, layer in base.adaptable_modules():
        if component.startswith("text_encoder"):
            short = layer.removeprefix("text_model.")
            name = f"text_model.{short}" if short.startswith("encoder.layers") else short
            found.setdefault(component, {})[name] = layer
    return found


def _comfy_keys(base: BaseModel, *, forge: bool) -> Iterator[tuple[str, Layer]]:
    if base.denoiser_component == "unet":
        originals = unet_originals(base)
        for original, layer in originals.items():
            yield "lora_unet_" + original.replace(".", "_"), ("unet", layer)
            yield "diffusion_model." + original, ("unet", layer)
        for theirs, original in unet_map(base.denoiser.config):
            if original in originals:
                target = ("unet", originals[original])
                yield "lora_unet_" + theirs.replace(".", "_"), target
                yield "lycoris_" + theirs.replace(".", "_"), target
                for start in ("", "unet."):
                    key = start + theirs.replace(".to_", ".processor.to_")
                    yield key[:-2] if key.endswith(".to_out.0") else key, target
    elif base.family == "flux" or not forge:
        starts = ["transformer."]
        starts += [] if forge else [""] if base.family == "flux" else ["base_model.model."]
        for component, layer in base.adaptable_modules():
            if component == "transformer":
                for start in starts:
                    yield start + layer, (component, layer)
                yield "lora_transformer_" + layer.replace(".", "_"), (component, layer)
                yield "lycoris_" + layer.replace(".", "_"), (component, layer)
    if base.family == "flux":
        yield from _flux_keys(base, forge=forge)
    if base.family == "sd3" and not forge:
        for layer, original, _ in sd3_originals(base):
            yield "lora_unet_" + original.replace(".", "_"), ("transformer", layer)
            yield "diffusion_model." + original, ("transformer", layer)
    two = base.family in ("sdxl", "sd3")
    for component, names in clip_layers(base).items():
        if component == "text_encoder" or (component == "text_encoder_2" and two):
            yield from _comfy_clip(component, names, forge=forge)
        else:
            numbers = "123" if forge else "3" if two else "23"
            for name, layer in names.items():
                for number in numbers:
                    yield f"lora_te{number}_{name.replace('.', '_')}", (component, layer)
                if not forge:
                    yield f"text_encoders.t5xxl.transformer.{name}", (component, layer)
                    yield f"text_encoders.transformer.{name}", (component, layer)


def flux_originals(base: BaseModel) -> Iterator[tuple[str, str, str]]:
    """Diffusers' name, the original one that holds its rows, and the name in another make."""
    config = base.denoiser.config
    for i in range(config.num_layers):
        ours, theirs = f"transformer_blocks.{i}", f"double_blocks.{i}"
        for letter in "qkv":
            yield f"{ours}.attn.to_{letter}", f"{theirs}.img_attn.qkv", ""
            yield f"{ours}.attn.add_{letter}_proj", f"{theirs}.txt_attn.qkv", ""
        yield f"{ours}.attn.to_out.0", f"{theirs}.img_attn.proj", ""
        yield f"{ours}.attn.to_add_out", f"{theirs}.txt_attn.proj", ""
        for stream, end in (("img", ""), ("txt", "_context")):
            yield f"{ours}.norm1{end}.linear", f"{theirs}.{stream}_mod.lin", ""
            for a, b, c in (("net.0.proj", "0", "linear_in"), ("net.2", "2", "linear_out")):
                yield f"{ours}.ff{end}.{a}", f"{theirs}.{stream}_mlp.{b}", f"{ours}.ff{end}.{c}"
    for i in range(config.num_single_layers):
        ours, theirs = f"single_transformer_blocks.{i}", f"single_blocks.{i}"
        for end in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"):
            yield f"{ours}.{end}", f"{theirs}.linear1", f"{ours}.attn.to_qkv_mlp_proj"
        yield f"{ours}.proj_out", f"{theirs}.linear2", f"{ours}.attn.to_out"
        yield f"{ours}.norm.linear", f"{theirs}.modulation.lin", ""
    yield "x_embedder", "img_in", ""
    yield "context_embedder", "txt_in", ""
    for ours, theirs in (("timestep", "time"), ("text", "vector"), ("guidance", "guidance")):
        for number, place in ((1, "in"), (2, "out")):
            name = f"time_text_embed.{ours}_embedder.linear_{number}"
            yield name, f"{theirs}_in.{place}_layer", ""
    yield "proj_out", "final_layer.linear", ""
    yield "norm_out.linear", "final_layer.adaLN_modulation.1", ""


class _Asked(dict[str, torch.Tensor]):
    """A checkpoint that has whatever it is asked for: three rows that say which name it was."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(dict.fromkeys(names, torch.zeros(3, 2)))
        self.asked: list[str] = []

    def pop(self, name: str, *_: object) -> torch.Tensor:  # type: ignore[override]
        self.asked.append(name)
        return torch.tensor([[len(self.asked) - 1, part] for part in range(3)])


def sd3_originals(base: BaseModel) -> Iterator[tuple[str, str, int]]:
    """Diffusers' name, the original one that holds its rows, and the third in which they begin.

    Told by what diffusers does with an original checkpoint.
    """
    config = base.denoiser.config
    blocks = [f"joint_blocks.{number}.x_block.attn.qkv" for number in range(config.num_layers)]
    twice = [f"joint_blocks.{i}.x_block.attn2.qkv" for i in config.dual_attention_layers]
    given = _Asked([*(f"{name}.weight" for name in blocks + twice), "context_embedder.weight"])
    made = convert_sd3_transformer_checkpoint_to_diffusers(given)
    layers = {name for component, name in base.adaptable_modules() if component == "transformer"}
    for name, rows in made.items():
        if name.endswith(".weight") and name.removesuffix(".weight") in layers:
            original = given.asked[int(rows[0, 0])].removesuffix(".weight")
            yield name.removesuffix(".weight"), original, int(rows[0, 1])


def _flux_keys(base: BaseModel, *, forge: bool) -> Iterator[tuple[str, Layer]]:
    for layer, original, other in flux_originals(base):
        target = ("transformer", layer)
        yield "lora_unet_" + original.replace(".", "_"), target
        yield "diffusion_model." + original, target
        if original.endswith(".linear1") and not layer.endswith("proj_mlp") and not forge:
            yield f"diffusion_model.{original}_qkv", target
        if other and not forge:
            yield from ((start + other, target) for start in ("transformer.", ""))
            flat = other.replace(".", "_")
            yield from ((start + flat, target) for start in ("lora_transformer_", "lycoris_"))


def _comfy_clip(
    component: str, names: dict[str, str], *, forge: bool
) -> Iterator[tuple[str, Layer]]:
    first = component == "text_encoder"
    encoder = "clip_l" if first else "clip_g"
    for name, layer in names.items():
        target = (component, layer)
        if not forge:
            yield f"text_encoders.{encoder}.transformer.{name}", target
        if name == "text_projection":
            yield ("lora_te1_" if first else "lora_te2_") + name, target
            if not first:
                yield "text_encoder.text_projection" if forge else "lora_prior_te_" + name, target
        elif name.endswith(CLIP):
            for start in ("lora_te_", "lora_te1_") if first else ("lora_te2_",):
                yield start + name.replace(".", "_"), target
            yield f"{component}.{name}", target


def comfy(base: BaseModel, *, forge: bool = False) -> Loaded:
    """ComfyUI, or Forge with its older table."""
    keys: dict[str, set[Layer]] = {}
    for key, layer in _comfy_keys(base, forge=forge):
        keys.setdefault(key, set()).add(layer)
    ends = [
        ("{}.lora_up.weight", "{}.lora_down.weight"),
        ("{}_lora.up.weight", "{}_lora.down.weight"),
        ("{}.lora_B.weight", "{}.lora_A.weight"),
        ("{}.lora.up.weight", "{}.lora.down.weight"),
        ("{}.lora_linear_layer.up.weight", "{}.lora_linear_layer.down.weight"),
    ]
    if not forge:
        ends += [("{}.lora_B", "{}.lora_A")]
        ends += [("{}.lora_B.default.weight", "{}.lora_A.default.weight")]
    pairs = {
        (down.format(key), up.format(key)): layers
        for key, layers in keys.items()
        for up, down in ends
    }
    return lambda down, up: pairs.get((down, up), set())
