"""Why a file could not be read in full: what its names say about the model and the kind it is of.

Nothing here makes a file readable. It is asked where tensors are left over, and its answers stand
beside the reasons for which the verdict is INCONCLUSIVE.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.adapter.delta import LayerShape
from loragate_server.intake.factors import FactorGroup
from loragate_server.intake.loader_rules.key_tables import comfyui_table, forge_table
from loragate_server.intake.loader_rules.meaning import Layout
from loragate_server.intake.naming import DOWN, UP, Naming
from loragate_server.intake.shapes import like_layer
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel

_NAMES_OF_FAMILIES: Mapping[str, str] = {
    "sd": "Stable Diffusion 1 or 2",
    "sdxl": "SDXL",
    "sd3": "Stable Diffusion 3",
    "flux": "Flux",
}
_START = (
    r"(?:\A(?:transformer\.|unet\.|diffusion_model\.|base_model\.model\.)*"
    r"|\A(?:lora_unet|lora_transformer|lycoris)_+)"
)
_BLOCKS = _START + r"transformer_blocks[._]\d+[._]"
_OTHERS = (
    ("Flux.2", r"(?:double|single)_stream_modulation|attn[._]to_qkv_mlp_proj"),
    ("HiDream", r"(?:double|single)_stream_blocks[._]\d"),
    ("Chroma", r"distilled_guidance_layer"),
    ("HunyuanVideo", r"token_refiner|double_blocks\.\d+\.(?:img|txt)_attn_(?:qkv|proj)"),
    ("Qwen-Image", r"transformer_blocks[._]\d+[._](?:img|txt)_(?:mlp|mod)[._]"),
    ("Z-Image or Lumina", r"(?:noise|context)_refiner[._]\d"),
    ("Z-Image or Lumina", _START + r"layers[._]\d+[._](?:attention|feed_forward|adaLN_mod)"),
    ("Anima or Cosmos", _START + r"blocks[._]\d+[._](?:self|cross)_attn[._](?:[qkv]|output)_proj"),
    ("Hunyuan-DiT", _START + r"blocks[._]\d+[._]attn[12][._](?:Wqkv|(?:q|kv|out)_proj)"),
    ("Wan", _START + r"blocks[._]\d+[._](?:(?:self|cross)_attn[._]|ffn[._]|attn[12][._])"),
    ("AuraFlow", r"joint_transformer_blocks[._]\d|(?:double|single)_layers[._]\d"),
    ("Stable Cascade", r"lora_prior_"),
    ("PixArt or LTX-Video", r"adaln_single"),
    ("another model of such blocks (PixArt, Sana, LTX-Video, CogVideoX)", _BLOCKS + r"attn1[._]"),
)
"""Names of families that the server does not have, and what only their layers are called."""
_OURS = (
    ("flux", r"(?:double|single)_blocks[._]\d|single_transformer_blocks[._]\d"),
    ("sd3", r"joint_blocks[._]\d|" + _BLOCKS + r"attn2?[._](?:to|add)_"),
    ("sdxl", r"lora_te2_|text_encoder_2\.|attentions[._]\d+[._]transformer_blocks[._][1-9]"),
    ("sdxl", r"(?:input|output)_blocks[._]\d+[._]1[._]transformer_blocks[._][1-9]"),
    ("sd", r"down_blocks[._]0[._]attentions|up_blocks[._]3[._]attentions|lora_te_"),
    ("sd", r"input_blocks[._]1[._]1[._]|output_blocks[._](?:9|10|11)[._]1[._]"),
)
_SHARED = {("flux", "sd3")}
"""Base model and family whose names it has as well, besides those that tell it apart."""
_SECOND_TEXT_ENCODER = {
    "flux": re.compile(r"(?:lora_te2_|text_encoder_2\.)encoder[._]block"),
    "sd3": re.compile(r"lora_te2_|text_encoder_2\."),
}
"""What a family calls its own one, where SDXL's has such names: a T5, and the same CLIP."""
_ALIKE = "Stable Diffusion 3 or another model of such blocks (Flux, Qwen-Image)"
"""What `transformer_blocks` with a layer `attn` is of, where nothing tells more."""
_TWO_ORDERS = "changes of the last modulation, whose halves trainers write in two orders"
_DEPTH = re.compile(_START + r"((?:single_)?transformer_blocks|joint_blocks)[._](\d+)[._]")
_KINDS = (
    (
        "changes of a T5 text encoder, which is not audited",
        r"\Alora_te\d_encoder_block_|encoder\.block\.\d+\.layer\.|SelfAttention|DenseReluDense|t5xxl",
    ),
    ("a DoRA in kohya's spelling", r"dora_scale\Z"),
    ("rotations (OFT or BOFT)", r"\.(?:oft_blocks|oft_diag|oft_R|boft_\w+)(?:\.|\Z)"),
    ("a GLoRA", r"\.[ab][12]\.weight\Z"),
    ("an IA3", r"ia3_l|\.on_input\Z"),
    ("a VeRA", r"vera_lambda"),
    (
        "changes of norms",
        r"\.[wb]_norm\Z|norm(?!\w*linear)\w*\.(?:diff|diff_b)\Z|(?:query|key)_norm\.scale\Z",
    ),
    ("changes of biases alone", r"\.diff_b\Z"),
    ("weights to be put in place of others", r"\.(?:set_weight|reshape_weight)\Z"),
    ("norms to be put in place of others", r"\.norm_(?:added_)?[qk]\.weight\Z"),
    ("sparse biases", r"\.bias_(?:indices|values|size)\Z"),
    ("whole layers beside factors", r"\.modules_to_save\.|\.base_layer\.|\.lora_embedding_[AB]"),
    ("scales of 8-bit weights", r"\.(?:scale_weight|weight_scale|scale_input|input_scale)\Z"),
    ("a ControlNet", r"\Acontrol_model\.|\Acontrolnet"),
    ("scales in the place of alphas", r"\.scale\Z"),
    ("a whole model", r"\Amodel\.diffusion_model\.|\Afirst_stage_model\."),
)
"""Kinds of adapters that are not read, by the ends of their tensors' names."""


def causes_of(
    layout: Layout, namings: Collection[Naming], left_over: Collection[str]
) -> Iterator[tuple[str, str]]:
    """What can be told about tensors that reached no layer, as (code, sentence).

    Args:
        layout: the file.
        namings: how the loaders read its names.
        left_over: names of those tensors; nothing is told where there are none.
    """
    if not left_over:
        return
    base, other = layout.base, made_for(layout.weights, layout.base.family)
    if other is not None:
        label, name = other
        here = _NAMES_OF_FAMILIES.get(base.family, base.family)
        yield (
            "other_family",
            f"By names such as {name[:80]} it was made for {label}; the base model {base.name} is "
            f"of the family {here}.",
        )
    sentence = _misfit(base, namings)
    found = kind_not_read(left_over, layout.weights)
    if found is None and sentence is None:
        found = _in_two_orders(base, left_over)
    if found is not None:
        label, name = found
        yield "unknown_kind", f"It holds {label}, such as {name[:80]}; this kind is not read."
    if sentence is None and other is None:
        sentence = _deeper(base, left_over)
    if sentence is not None:
        yield "shape_misfit", sentence


def _in_two_orders(base: BaseModel, names: Collection[str]) -> tuple[str, str] | None:
    """What to call a change whose rows some loader has in another order, and the first name."""
    if base.denoiser_component == "unet":
        return None
    tables = (comfyui_table(base), forge_table(base))
    hits = ((name, table.find(name)) for name in names for table in tables)
    return next(((_TWO_ORDERS, name) for name, hit in hits if hit and hit.turned), None)


def made_for(names: Collection[str], family: str) -> tuple[str, str] | None:
    """For which other model a file was made, and the name that tells; None where none does."""
    if (own_text := _SECOND_TEXT_ENCODER.get(family)) is not None:
        names = [one for one in names if not own_text.match(one)]
    for label, pattern in _OTHERS:
        if (name := _first(pattern, names)) is not None:
            return label, name
    for own, pattern in _OURS:
        if (name := _first(pattern, names)) is not None:
            if own == family or (family, own) in _SHARED:
                return None
            alike = own == "sd3" and "joint_blocks" not in name
            return _ALIKE if alike else _NAMES_OF_FAMILIES[own], name
    return None


def kind_not_read(names: Collection[str], beside: Collection[str] = ()) -> tuple[str, str] | None:
    """Which kind of adapter the tensors are of, and the first; None for one that is not known.

    Args:
        names: of the tensors.
        beside: names of all tensors of the file; a bias beside its weight's change is read.
    """
    alone = [n for n in names if not n.endswith(".diff_b") or n.removesuffix("_b") not in beside]
    for label, pattern in _KINDS:
        if (name := _first(pattern, alone)) is not None:
            return label, name
    return None


def _first(pattern: str, names: Collection[str]) -> str | None:
    search = re.compile(pattern).search
    return next((name for name in names if search(name)), None)


def _misfit(base: BaseModel, namings: Collection[Naming]) -> str | None:
    """The first layer whose change is of another size than the layer itself."""
    layers = base.adaptable_modules()
    for ref, made in (one for naming in namings for one in _changes(naming)):
        module = layers.get((ref.component, ref.module))
        if module is None:
            continue
        shape = layer_shape(module)
        if (size := made(shape)) is not None:
            has = tuple(shape.weight.shape)
            return f"Layer {ref.module} has the shape {has}; the file's change of it has {size}."
    return None


Size = Callable[[LayerShape], tuple[int, ...] | None]
"""The size of a change that does not fit the layer; None for one that does."""


def _changes(naming: Naming) -> Iterator[tuple[ModuleRef, Size]]:
    for ref, parts in naming.parts.items():
        if (down := parts.get(DOWN)) is not None and (up := parts.get(UP)) is not None:
            yield ref, partial(_size_of_pair, down, up)
    for ref, (group, rows) in naming.stacked.items():
        yield ref, partial(_size_of_group, group, rows)


def _size_of_pair(down: Tensor, up: Tensor, layer: LayerShape) -> tuple[int, ...] | None:
    return None if like_layer(layer, down, up) is not None else _made(down, up)


def _size_of_group(group: FactorGroup, rows: slice, layer: LayerShape) -> tuple[int, ...] | None:
    fits = group.delta(layer, 1.0, rows, torch.device("meta")) is not None
    size = None if fits else group.size(rows)
    # what does not fit for another reason than its size has no cause here
    return None if size == tuple(layer.weight.shape) else size


def _deeper(base: BaseModel, names: Collection[str]) -> str | None:
    """The first block that this model has not, of those that are known by number."""
    last: dict[str, int] = {}
    for component, module in base.adaptable_modules():
        if component == base.denoiser_component and (found := _DEPTH.match(module)) is not None:
            kind, number = found.groups()
            last[kind] = max(last.get(kind, 0), int(number))
    for name in names:
        if (found := _DEPTH.search(name)) is not None:
            kind = found[1].replace("joint_blocks", "transformer_blocks")
            if kind in last and int(found[2]) > last[kind]:
                return (
                    f"By names such as {name[:80]} it was made for a deeper model; the last of "
                    f"{kind} is {last[kind]} here."
                )
    return None


def _made(down: Tensor, up: Tensor) -> tuple[int, ...]:
    """The shape of up @ down, as far as there is one."""
    return (*up.shape[:1], *down.shape[1:])
