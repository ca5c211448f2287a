"""What original checkpoints call the layers of a base model, from its own layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.models.base import BaseModel
from loragate_server.models.once import once_per_base

_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ROOTS = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_FLUX_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_FLUX_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
}
_FLUX_ROOTS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}

_SD3_BLOCK = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
}
_SD3_ROOTS = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}


@once_per_base
def layer_refs(base: BaseModel) -> frozenset[ModuleRef]:
    """Every adaptable layer."""
    return frozenset(ModuleRef(*key) for key in base.adaptable_modules())


@once_per_base
def denoiser_layers(base: BaseModel) -> tuple[str, ...]:
    """The dotted names of the denoiser's adaptable layers."""
    part = base.denoiser_component
    return tuple(name for component, name in base.adaptable_modules() if component == part)


def resnets_per_block(layers: Sequence[str]) -> int:
    """How many residual blocks stand in one block on the way down; original UNets have two."""
    return len({name.split(".")[3] for name in layers if name.startswith("down_blocks.0.resnets.")})


def of_unet(layers: Sequence[str]) -> Mapping[str, str]:
    """Layer of a UNet to its name in an original checkpoint."""
    step = resnets_per_block(layers) + 1
    attentive = {name.split(".")[1] for name in layers if name.startswith("up_blocks.")
                 and ".attentions." in name}  # fmt: skip
    found = {}
    for name in layers:
        if (original := _of_unet_layer(name, step, attentive)) is not None:
            found[name] = original
    return found


def _of_unet_layer(name: str, step: int, attentive: set[str]) -> str | None:
    if name in _UNET_ROOTS:
        return _UNET_ROOTS[name]
    if name.startswith("mid_block."):
        _, kind, number, rest = name.split(".", 3)
        if kind == "attentions":
            return f"middle_block.1.{rest}"
        return f"middle_block.{2 * int(number)}.{_RESNET[rest]}"
    side, _, after = name.partition(".")
    if side not in ("down_blocks", "up_blocks"):
        return None
    block, kind, number, rest = after.split(".", 3)
    down = side == "down_blocks"
    if kind in ("downsamplers", "upsamplers"):
        if down:
            return f"input_blocks.{step * (int(block) + 1)}.0.op"
        return f"output_blocks.{step * int(block) + step - 1}.{1 + (block in attentive)}.conv"
    place = step * int(block) + int(number) + down
    part = "1." + rest if kind == "attentions" else "0." + _RESNET[rest]
    return f"{'input' if down else 'output'}_blocks.{place}.{part}"


def flux_aliases(layers: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names of layers in other trees of Flux, each with the layers that stand for it."""
    for name in layers:
        for ours, theirs in ((".net.0.proj", ".linear_in"), (".net.2", ".linear_out")):
            if name.startswith("transformer_blocks.") and name.endswith(ours):
                yield name.removesuffix(ours) + theirs, (name,)
        if name.startswith("single_transformer_blocks.") and name.endswith(".proj_out"):
            block = name.removesuffix(".proj_out")
            yield f"{block}.attn.to_out", (name,)
            fused = tuple(f"{block}.{tail}" for tail in _FLUX_SINGLE["linear1"])
            yield f"{block}.attn.to_qkv_mlp_proj", fused


def of_flux(layers: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names in an original checkpoint, each with the layers that stand for it, one or several."""
    known = frozenset(layers)
    for name, layer in _FLUX_ROOTS.items():
        if layer in known:
            yield name, (layer,)
    for ours, theirs, parts in (
        ("transformer_blocks", "double_blocks", _FLUX_DOUBLE),
        ("single_transformer_blocks", "single_blocks", _FLUX_SINGLE),
    ):
        numbers = {name.split(".")[1] for name in layers if name.startswith(f"{ours}.")}
        for number in sorted(numbers):
            for name, tails in parts.items():
                targets = tuple(f"{ours}.{number}.{tail}" for tail in tails)
                if known.issuperset(targets):
                    yield f"{theirs}.{number}.{name}", targets


def of_sd3(layers: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Names in an original checkpoint of SD3, each with the layers that stand for it."""
    known = frozenset(layers)
    for name, layer in _SD3_ROOTS.items():
        if layer in known:
            yield name, (layer,)
    numbers = {name.split(".")[1] for name in layers if name.startswith("transformer_blocks.")}
    for number in sorted(numbers):
        for name, tails in _SD3_BLOCK.items():
            targets = tuple(f"transformer_blocks.{number}.{tail}" for tail in tails)
            if known.issuperset(targets):
                yield f"joint_blocks.{number}.{name}", targets


@once_per_base
def turned_layers(base: BaseModel) -> frozenset[str]:
    """Layers whose original has its halves the other way round, so that rows do not fit as told.

    The last norms: of the denoiser itself, and in SD3 also of the text in the last block, which
    ends there.
    """
    found = {"norm_out.linear"}
    if base.family == "sd3":
        layers = denoiser_layers(base)
        blocks = [int(n.split(".")[1]) for n in layers if n.startswith("transformer_blocks.")]
        found.add(f"transformer_blocks.{max(blocks, default=0)}.norm1_context.linear")
    return frozenset(found)
