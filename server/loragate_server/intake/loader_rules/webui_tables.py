"""What AUTOMATIC1111 and SD.Next take a tensor's name for.

Both cut a name into a key and a part, rewrite the key, and look it up among the names of the
model's modules; rewriting makes one key of many, so there is no list of all spellings, only the
steps. Where original UNets have two residual blocks in each block, the base model's own number
stands here. Followed are `load_network` of AUTOMATIC1111 1.10 (extensions-builtin/Lora/networks.py)
and `load_safetensors` of SD.Next (modules/lora/lora_load.py, lora_convert.py).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.factors import FACTOR_SUFFIXES
from loragate_server.intake.loader_rules.key_tables import ALPHA, Hit, Refs, flat, is_sd2
from loragate_server.intake.loader_rules.original_names import (
    denoiser_layers,
    of_flux,
    of_sd3,
    of_unet,
    resnets_per_block,
    turned_layers,
)
from loragate_server.intake.naming import DOWN, UP
from loragate_server.models.base import BaseModel
from loragate_server.models.once import once_per_base

_LORA = {"lora_down.weight": ("lora_down", DOWN), "lora_up.weight": ("lora_down", UP)}
_PEFT = {"lora_A.weight": ("lora_A", DOWN), "lora_B.weight": ("lora_A", UP)}
_OTHERS = {"alpha": ("", ALPHA), **{suffix: ("", suffix) for suffix in FACTOR_SUFFIXES}}

_BLOCK = re.compile(r"lora_unet_(down|up)_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)")
_MIDDLE = re.compile(r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)")
_TIME = re.compile(r"lora_unet_time_embedding_linear_(\d+)(.*)")
_SAMPLER = re.compile(
    r"lora_unet_(?:down_blocks_(\d+)_downsamplers|up_blocks_(\d+)_upsamplers)_0_conv"
)
_TEXT = re.compile(r"lora_te(2?)_text_model_encoder_layers_(\d+)_(.+)")
_IN_RESNET = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "norm1": "in_layers_0",
    "norm2": "out_layers_0",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}

SD3_ORIGINAL = "joint_blocks"
"""In names of the blocks of SD3's original code. What these two make of them is not followed here,
so a file with such a name is not for their tables."""
_SD3_LAYERS = (".attn.to_q", ".attn.to_k", ".attn.to_v", ".attn.to_out.0")
"""Ends of the layers whose names in diffusers AUTOMATIC1111 has a place for; others it leaves."""


class A1111Table:
    """AUTOMATIC1111's names; it ends with an error at a part that it cannot use."""

    def __init__(self, base: BaseModel) -> None:
        # The base model itself would live as long as what is remembered of it (`once_per_base`).
        self._sd3 = base.family == "sd3"
        self._unet = base.denoiser_component == "unet"
        self._step = resnets_per_block(denoiser_layers(base)) + 1
        self._sd2 = is_sd2(base)
        self._modules = dict(_a1111_modules(base))
        halves = {ModuleRef("transformer", layer) for layer in turned_layers(base)}
        self._turned = {key for key, refs in self._modules.items() if halves.issuperset(refs)}

    def find(self, name: str) -> Hit | None:
        """The module behind the rewritten key."""
        if self._unet:
            key, _, rest = name.partition(".")
            key = self._rewritten(key)
        else:
            key, _, rest = name.rpartition(".")
            key, _, first = key.rpartition(".")
            key, rest = key.replace("lora_unet", "diffusion_model"), f"{first}.{rest}"
        if (refs := self._modules.get(key)) is None:
            # it has more modules than those that are listed: SD3's blocks and norms
            other = self._sd3 and key.startswith("diffusion_model_") and "." not in key
            return Hit(name, "", "", ()) if other else None
        way, part = (_LORA | _PEFT | _OTHERS).get(rest, ("", ""))
        # it takes nothing but the two factors out of a layer that is written in peft's way
        return Hit(key, way, part, refs, unscaled=rest in _PEFT, turned=key in self._turned)

    def _rewritten(self, key: str) -> str:
        found = self._to_original(key)
        if found in self._modules:
            return found
        if "lora_unet" in key:
            return key.replace("lora_unet", "diffusion_model")
        for start in ("0_", ""):
            other = key.replace("lora_te1_text_model", f"{start}transformer_text_model")
            if other != key and other in self._modules:
                return other
        return found

    def _to_original(self, key: str) -> str:
        for start, original in (("conv_in", "input_blocks_0_0"), ("conv_out", "out_2")):
            if key.startswith(f"lora_unet_{start}"):
                return f"diffusion_model_{original}{key.removeprefix(f'lora_unet_{start}')}"
        if found := _TIME.match(key):
            return f"diffusion_model_time_embed_{2 * int(found[1]) - 2}{found[2]}"
        if found := _BLOCK.match(key):
            down, kind = found[1] == "down", found[3]
            place = self._step * int(found[2]) + int(found[4]) + down
            tail = _tail(kind, found[5])
            return f"diffusion_model_{'input' if down else 'output'}_blocks_{place}_{tail}"
        if found := _MIDDLE.match(key):
            tail = found[3] if found[1] == "attentions" else _IN_RESNET.get(found[3], found[3])
            place = 1 if found[1] == "attentions" else 2 * int(found[2])
            return f"diffusion_model_middle_block_{place}_{tail}"
        if found := _SAMPLER.match(key):
            if found[1] is not None:
                return f"diffusion_model_input_blocks_{self._step * (int(found[1]) + 1)}_0_op"
            block = int(found[2])
            place = self._step * block + self._step - 1
            return f"diffusion_model_output_blocks_{place}_{1 + (block > 0)}_conv"
        if found := _TEXT.match(key):
            return self._text(found[1], int(found[2]), found[3])
        return key

    def _text(self, second: str, layer: int, tail: str) -> str:
        if not second and not self._sd2:
            return f"transformer_text_model_encoder_layers_{layer}_{tail}"
        start = "1_" if second else ""
        return f"{start}model_transformer_resblocks_{layer}_{_open_clip(tail)}"


def _tail(kind: str, rest: str) -> str:
    return f"1_{rest}" if kind == "attentions" else f"0_{_IN_RESNET.get(rest, rest)}"


def _open_clip(tail: str) -> str:
    if "mlp_fc1" in tail:
        return tail.replace("mlp_fc1", "mlp_c_fc")
    if "mlp_fc2" in tail:
        return tail.replace("mlp_fc2", "mlp_c_proj")
    return tail.replace("self_attn", "attn")


def _a1111_modules(base: BaseModel) -> Iterator[tuple[str, Refs]]:
    if base.denoiser_component == "unet":
        for layer, original in of_unet(denoiser_layers(base)).items():
            yield f"diffusion_model_{flat(original)}", (ModuleRef("unet", layer),)
    elif base.family == "sd3":
        for layer in denoiser_layers(base):
            if layer.startswith("transformer_blocks.") and layer.endswith(_SD3_LAYERS):
                yield f"transformer.{layer}", (ModuleRef("transformer", layer),)
        for original, (layer, *others) in of_sd3(denoiser_layers(base)):
            if not others and SD3_ORIGINAL not in original:
                yield f"diffusion_model_{flat(original)}", (ModuleRef("transformer", layer),)
    if base.family not in ("sd", "sdxl"):
        return
    start = "0_" if base.family == "sdxl" else ""
    for component, layer in base.adaptable_modules():
        tail = layer.removeprefix("text_model.")
        if not component.startswith("text_encoder") or not tail.startswith("encoder.layers."):
            continue
        _, _, number, rest = tail.split(".", 3)
        refs = (ModuleRef(component, layer),)
        if component == "text_encoder_2" or is_sd2(base):
            own = "1_" if component == "text_encoder_2" else ""
            yield f"{own}model_transformer_resblocks_{number}_{_open_clip(flat(rest))}", refs
        else:
            yield f"{start}transformer_text_model_{flat(tail)}", refs


def joint_layers(base: BaseModel) -> Iterator[frozenset[ModuleRef]]:
    """Layers that are one for AUTOMATIC1111, which loads all that a file has for them or none.

    OpenCLIP's attention is one module of four projections, SD3's has its three inputs in one:
    `network_apply_weights` wants a change for each.
    """
    layers = {*base.adaptable_modules()}
    for component, ends in _joint(base).items():
        for own, layer in layers:
            stem, _, end = layer.rpartition(".")
            if own == component and end == ends[0]:
                yield frozenset(ModuleRef(component, f"{stem}.{each}") for each in ends)


def _joint(base: BaseModel) -> dict[str, tuple[str, ...]]:
    if base.family == "sd3":
        return {"transformer": ("to_q", "to_k", "to_v")}
    if base.family == "sdxl":
        return {"text_encoder_2": _OPEN_CLIP}
    return {"text_encoder": _OPEN_CLIP} if is_sd2(base) else {}


_OPEN_CLIP = ("q_proj", "k_proj", "v_proj", "out_proj")


class SdNextTable:
    """SD.Next's names.

    Args:
        base: the base model.
        names: all of the file; Flux's original names are converted where there are no others.
        dotted_peft: whether `lora_A` behind dotted names is known, as it was before those of
            `unet.` and `transformer.` got a reader of their own.
        flat_text: whether its library of text encoders leaves the level `text_model` out.
    """

    def __init__(
        self, base: BaseModel, names: Collection[str], *, dotted_peft: bool, flat_text: bool
    ) -> None:
        self._dotted_peft = dotted_peft
        known = _sdnext_names(base)
        self._modules = known.flat_text if flat_text else known.modules
        self._originals, self._starts = known.originals, known.starts
        whole = all(name.partition(".")[0] in known.flux for name in names)
        self._flux = known.flux if whole else {}

    def find(self, name: str) -> Hit | None:
        """The module behind the rewritten key."""
        key, rest = self._cut(name)
        if key in self._flux:
            found, refs = key, self._flux[key]
        else:
            found = self._rewritten(key)
            if (known := self._modules.get(found)) is None:
                return None
            refs = known
        known_part = (_LORA | _OTHERS).get(rest)
        return None if known_part is None else Hit(found, *known_part, refs)

    def _cut(self, name: str) -> tuple[str, str]:
        parts = name.split(".")
        if not self._dotted_peft and parts[0] in ("clip_l", "clip_g", "t5", "unet", "transformer"):
            rest: list[str] = []
            while parts and parts[-1] in ("alpha", "weight", "lora_up", "lora_down"):
                rest.insert(0, parts.pop())
            key = "_".join(parts)
            if key.startswith(("unet", "transformer")):
                key = f"lora_{key}"
            return key.replace("clip_g", "lora_te2").replace("clip_l", "lora_te"), ".".join(rest)
        if len(parts) > 5:
            key = "_".join(parts[:-2])
            end = ".".join(parts[-2:]).replace("lora_A", "lora_down").replace("lora_B", "lora_up")
            return key if key.startswith("lora_") else f"lora_{key}", end
        key, _, end = name.partition(".")
        return key, end

    def _rewritten(self, key: str) -> str:
        key = key.replace("diffusion_model", "lora_unet")
        searched = key
        for start in ("lora_unet_", "oft_unet_", "lora_te1_", "lora_te2_"):
            searched = searched.replace(start, "")
        place = bisect_right(self._starts, searched) - 1
        if self._originals and searched.startswith(self._starts[place]):
            start, layer = self._originals[place]
            key = key.replace(start, layer).replace("oft", "lora")
        if "lycoris" in key and "transformer" in key:
            key = key.replace("lycoris", "lora_transformer")
        others = [key, key.replace("guidance", "timestep")]
        if key.startswith("lora_te"):
            others.append(key.replace("_text_model_", "_", 1))
        return next((each for each in others if each in self._modules), key)


@dataclass(frozen=True)
class _SdNextNames:
    """What SD.Next knows of a base model, whatever the file.

    Attributes:
        modules: its names of layers.
        flat_text: the same where the library of text encoders leaves the level `text_model` out.
        originals: beginnings of original names and what diffusers calls them, sorted.
        starts: the first of each pair of `originals`.
        flux: original names of Flux's blocks.
    """

    modules: Mapping[str, Refs]
    flat_text: Mapping[str, Refs]
    originals: Sequence[tuple[str, str]]
    starts: Sequence[str]
    flux: Mapping[str, Refs]


@once_per_base
def _sdnext_names(base: BaseModel) -> _SdNextNames:
    originals = sorted(_sdnext_blocks(base).items())
    flux = {
        f"lora_unet_{flat(name)}": tuple(ModuleRef("transformer", each) for each in layers)
        for name, layers in (of_flux(denoiser_layers(base)) if base.family == "flux" else ())
        if name.startswith(("double_blocks.", "single_blocks."))
    }
    return _SdNextNames(
        dict(_sdnext_modules(base, flat_text=False)),
        dict(_sdnext_modules(base, flat_text=True)),
        originals,
        [start for start, _ in originals],
        flux,
    )


def _sdnext_modules(base: BaseModel, *, flat_text: bool) -> Iterator[tuple[str, Refs]]:
    starts = {
        # whether there is a second one, of whatever kind
        "text_encoder": "lora_te_" if base.family == "sd" else "lora_te1_",
        "text_encoder_2": "lora_te2_",
        "unet": "lora_unet_",
        "transformer": "lora_transformer_",
    }
    for component, layer in base.adaptable_modules():
        if component not in starts:
            continue
        name = layer.removeprefix("text_model.")
        # encoders with a projection have kept the level
        gone = flat_text and component == "text_encoder" and base.family != "sd3"
        if name.startswith("encoder.layers.") and not gone:
            name = f"text_model.{name}"
        yield f"{starts[component]}{flat(name)}", (ModuleRef(component, layer),)


def _sdnext_blocks(base: BaseModel) -> dict[str, str]:
    """Beginnings of original names to those of diffusers, for four blocks in any model."""
    step = resnets_per_block(denoiser_layers(base)) + 1
    found = {
        "middle_block_1": "mid_block_attentions_0",
        "input_blocks_0_0": "conv_in",
        "out_0": "conv_norm_out",
        "out_2": "conv_out",
    }
    for block in range(4):
        for number in range(step):
            down, up = step * block + number + 1, step * block + number
            if number < step - 1:
                found |= _resnet(f"input_blocks_{down}_0", f"down_blocks_{block}_resnets_{number}")
                if block < 3:
                    found[f"input_blocks_{down}_1"] = f"down_blocks_{block}_attentions_{number}"
            found |= _resnet(f"output_blocks_{up}_0", f"up_blocks_{block}_resnets_{number}")
            found[f"output_blocks_{up}_1"] = f"up_blocks_{block}_attentions_{number}"
        if block < 3:
            end = step * (block + 1)
            found[f"input_blocks_{end}_0_op"] = f"down_blocks_{block}_downsamplers_0_conv"
            found[f"output_blocks_{end - 1}_2"] = f"up_blocks_{block}_upsamplers_0"
    for number in range(2):
        found |= _resnet(f"middle_block_{2 * number}", f"mid_block_resnets_{number}")
        found[f"time_embed_{2 * number}"] = f"time_embedding_linear_{number + 1}"
        found[f"label_emb_0_{2 * number}"] = f"add_embedding_linear_{number + 1}"
    return found


def _resnet(original: str, layer: str) -> dict[str, str]:
    return {f"{original}_{theirs}": f"{layer}_{ours}" for ours, theirs in _IN_RESNET.items()}
