"""What ComfyUI and Forge call each layer of a base model: their tables of keys, made forwards.

Both look for each key of a table in the file, with the ends that they know; they take what they
find and leave the rest alone. Followed are `model_lora_keys_unet`, `model_lora_keys_clip` and
`load_lora` of ComfyUI (comfy/lora.py, comfy/weight_adapter/lora.py) and of Forge
(backend/patcher/lora.py, packages_3rdparty/comfyui_lora_collection).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.factors import FACTOR_SUFFIXES
from loragate_server.intake.loader_rules.original_names import (
    denoiser_layers,
    flux_aliases,
    of_flux,
    of_sd3,
    of_unet,
    turned_layers,
)
from loragate_server.intake.naming import DOWN, PEFT_PREFIX, UP
from loragate_server.models.base import BaseModel

ALPHA = "alpha"
Refs = tuple[ModuleRef, ...]


@dataclass(frozen=True)
class Hit:
    """What a loader takes a tensor for.

    Attributes:
        slot: tensors of one slot are put together.
        way: how the ends of names are written; factors of two ways do not belong together.
        part: `DOWN`, `UP`, `ALPHA`, a factor of LyCORIS, or "" for one that it cannot use.
        refs: the layers whose rows it holds; none where the base model lacks what it is for.
        unscaled: whether an alpha beside this factor counts for nothing.
        turned: whether its halves lie as in an original checkpoint, which is the other way round
            than in the layer.
    """

    slot: str
    way: str
    part: str
    refs: Refs
    unscaled: bool = False
    turned: bool = False


class KeyTable(Protocol):
    """A loader's names of the layers of one base model, all of them.

    Where a loader may know further names than are listed, it answers with a part that cannot be
    used: a name of no answer is left out of the loader's reading if another table knows it.
    """

    def find(self, name: str) -> Hit | None:
        """What the loader takes the tensor of this name for; None where it leaves it alone."""


_LORA = ("lora_down", ".lora_down.weight", ".lora_up.weight")
_PROCESSOR = ("_lora", "_lora.down.weight", "_lora.up.weight")
_PEFT = ("lora_A", ".lora_A.weight", ".lora_B.weight")
_DIFFUSERS = ("lora.down", ".lora.down.weight", ".lora.up.weight")
_LINEAR = ("linear_layer", ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")
_BARE = ("bare", ".lora_A", ".lora_B")
_DEFAULT = ("default", ".lora_A.default.weight", ".lora_B.default.weight")
_XLABS = ("xlabs", ".down.weight", ".up.weight")
_FORGE_WAYS = (_LORA, _PROCESSOR, _PEFT, _DIFFUSERS, _LINEAR)
_COMFYUI_WAYS = (*_FORGE_WAYS, _BARE, _DEFAULT)

_CLIP_LAYERS = (
    "mlp.fc1", "mlp.fc2",
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj",
)  # fmt: skip
_SD2_WIDTH = 1024
"""Of the text encoder of Stable Diffusion 2, which is another one."""


class PrefixTable:
    """Keys to layers, and the ends that make a tensor's name of a key.

    Args:
        keys: every key, with the layers that it is for.
        ways: how the ends of names are written.
        turned: keys, each with the parts whose halves are turned under it.
        biasless: keys under which the loader puts a change of the bias nowhere.
    """

    def __init__(
        self,
        keys: Mapping[str, Refs],
        ways: Iterable[tuple[str, str, str]],
        turned: Mapping[str, Collection[str]] | None = None,
        biasless: Collection[str] = (),
    ) -> None:
        self._keys = keys
        self._turned = turned or {}
        self._biasless = frozenset(biasless)
        self._ends = [
            *((down, way, DOWN) for way, down, _ in ways),
            *((up, way, UP) for way, _, up in ways),
            (".alpha", "", ALPHA),
            *((f".{suffix}", "", suffix) for suffix in FACTOR_SUFFIXES),
        ]

    @property
    def keys(self) -> Mapping[str, Refs]:
        """Every key, with the layers that it is for."""
        return self._keys

    def find(self, name: str) -> Hit | None:
        """The key that the name begins with, where it ends in a way that is known."""
        for end, way, part in self._ends:
            key = name.removesuffix(end)
            if len(key) < len(name) and key in self._keys:
                turned = part in self._turned.get(key, ())
                if part == _BIAS and key in self._biasless:
                    return Hit(name, "", "", self._keys[key])
                return Hit(key, way, part, self._keys[key], turned=turned)
        return None


def comfyui_table(base: BaseModel) -> PrefixTable:
    """ComfyUI's names."""
    keys = dict(_of_unet(base) if base.denoiser_component == "unet" else _of_transformer(base))
    if base.family == "flux":
        keys.update(_of_other_flux(base))
    keys.update(_of_clips(base))
    keys.update(_generic_text(base))
    index = {"sd3": ("3",), "flux": ("2", "3")}.get(base.family, ())
    keys.update(_of_t5(base, index))
    if "text_encoder_2" in _clips(base):
        keys["lora_prior_te_text_projection"] = keys["lora_te2_text_projection"]
    turned = _turned_parts(base, _of_transformer(base), ())
    return PrefixTable(keys, _COMFYUI_WAYS, turned, _biasless(base, keys))


def xlabs_table(base: BaseModel) -> PrefixTable:
    """XLabs' names of Flux, which ComfyUI and its nodes know where a file has no others."""
    keys: dict[str, Refs] = {}
    for original, layers in of_flux(denoiser_layers(base)) if base.family == "flux" else ():
        block, _, part = original.rpartition("blocks.")
        number, _, layer = part.partition(".")
        if layer in _OF_XLABS:
            kept = layers[:3]  # of the four in one layer of a single block, all but the last
            refs = tuple(ModuleRef("transformer", each) for each in kept)
            keys[f"{block}blocks.{number}.processor.{_OF_XLABS[layer]}"] = refs
    return PrefixTable(keys, (_XLABS,))


_OF_XLABS = {
    "img_attn.qkv": "qkv_lora1",
    "txt_attn.qkv": "qkv_lora2",
    "img_attn.proj": "proj_lora1",
    "txt_attn.proj": "proj_lora2",
    "linear1": "qkv_lora",
    "linear2": "proj_lora",
}


def forge_table(base: BaseModel) -> PrefixTable:
    """Forge's names: an older table of ComfyUI's with some of its own."""
    keys: dict[str, Refs] = {}
    if base.denoiser_component == "unet":
        keys.update(_of_unet(base))
    elif base.family == "flux":
        keys.update(
            (key, refs) for key, refs in _of_transformer(base) if not key.startswith(_BARE_BLOCKS)
        )
    else:
        keys.update(_of_originals(base))
    keys.update(_of_clips(base))
    keys.update(_of_t5(base, ("1", "2", "3")))
    if "text_encoder_2" in _clips(base):
        keys["text_encoder.text_projection"] = keys["lora_te2_text_projection"]
    # whole changes it adds as they are, whatever they are called
    turned = _turned_parts(base, list(keys.items()), _WHOLE)
    return PrefixTable(keys, _FORGE_WAYS, turned, _biasless(base, keys))


_BARE_BLOCKS = (
    "transformer_blocks.", "single_transformer_blocks.", "time_text_embed.", "x_embedder",
    "context_embedder", "norm_out.", "proj_out",
)  # fmt: skip


def _of_unet(base: BaseModel) -> Iterator[tuple[str, Refs]]:
    for layer, original in of_unet(denoiser_layers(base)).items():
        refs = (ModuleRef("unet", layer),)
        yield f"lora_unet_{flat(original)}", refs
        yield f"diffusion_model.{original}", refs
        names = [layer]
        if layer.startswith("add_embedding."):  # the same place in another kind of UNet
            names.append(layer.replace("add_", "class_"))
        for name in names:
            dotted = name.replace(".to_", ".processor.to_")
            dotted = dotted.removesuffix(".0") if dotted.endswith(".to_out.0") else dotted
            yield f"lora_unet_{flat(name)}", refs
            yield f"lycoris_{flat(name)}", refs
            yield dotted, refs
            yield f"unet.{dotted}", refs


def _of_transformer(base: BaseModel) -> Iterator[tuple[str, Refs]]:
    layers = denoiser_layers(base)
    starts = ("transformer.", "" if base.family == "flux" else PEFT_PREFIX)
    for layer in layers:
        refs: Refs = (ModuleRef("transformer", layer),)
        for start in starts:
            yield f"{start}{layer}", refs
        yield f"lora_transformer_{flat(layer)}", refs
        yield f"lycoris_{flat(layer)}", refs
    yield from _of_originals(base)


def _of_originals(base: BaseModel) -> Iterator[tuple[str, Refs]]:
    """What original checkpoints of transformers call the layers."""
    layers = denoiser_layers(base)
    for original, targets in of_flux(layers) if base.family == "flux" else of_sd3(layers):
        refs = tuple(ModuleRef("transformer", layer) for layer in targets)
        yield f"lora_unet_{flat(original)}", refs
        yield f"diffusion_model.{original}", refs


_EVERY_PART = frozenset((DOWN, UP, ALPHA, *FACTOR_SUFFIXES))
_BIAS = "diff_b"
_WHOLE = ("diff", _BIAS)


def _biasless(base: BaseModel, keys: Mapping[str, Refs]) -> Collection[str]:
    """Names of diffusers for what ComfyUI has as rows of another layer, or with turned halves.

    Their weights it finds with a place or a function beside them, and to that it adds ".bias".
    """
    if base.denoiser_component == "unet":
        return ()
    originals = dict(_of_originals(base))
    turned = {ModuleRef("transformer", layer) for layer in turned_layers(base)}
    apart = turned.union(*(refs for refs in originals.values() if len(refs) > 1))
    return [
        key
        for key, refs in keys.items()
        if refs and key not in originals and apart.issuperset(refs)
    ]


def _turned_parts(
    base: BaseModel, keys: Iterable[tuple[str, Refs]], elsewhere: Collection[str]
) -> dict[str, Collection[str]]:
    """Keys of layers whose halves original checkpoints turn, with the parts that are turned.

    Args:
        base: the base model.
        keys: all keys of its transformer.
        elsewhere: parts that the loader does not turn where a key is a name of diffusers.
    """
    if base.denoiser_component == "unet":
        return {}
    turned = {ModuleRef("transformer", layer) for layer in turned_layers(base)}
    originals = {key for key, _ in _of_originals(base)}
    return {
        key: _EVERY_PART if key in originals else elsewhere
        for key, refs in keys
        if refs and turned.issuperset(refs)
    }


def _of_other_flux(base: BaseModel) -> Iterator[tuple[str, Refs]]:
    """Keys that ComfyUI has for other makes of Flux, too."""
    layers = denoiser_layers(base)
    for name, targets in flux_aliases(layers):
        refs = tuple(ModuleRef("transformer", layer) for layer in targets)
        yield from ((f"{start}{name}", refs) for start in ("transformer.", ""))
        yield from ((f"{start}{flat(name)}", refs) for start in ("lora_transformer_", "lycoris_"))
    for original, targets in of_flux(layers):
        if original.endswith(".linear1"):
            refs = tuple(ModuleRef("transformer", layer) for layer in targets[:3])
            yield f"diffusion_model.{original}_qkv", refs


def _clips(base: BaseModel) -> dict[str, dict[str, ModuleRef]]:
    """Text encoders of CLIP's kind: their layers by the names without `text_model.`."""
    found: dict[str, dict[str, ModuleRef]] = {}
    for component, layer in base.adaptable_modules():
        if component == "text_encoder" or (
            component == "text_encoder_2" and base.family in ("sdxl", "sd3")
        ):
            tail = layer.removeprefix("text_model.")
            found.setdefault(component, {})[tail] = ModuleRef(component, layer)
    return found


def _of_clips(base: BaseModel) -> Iterator[tuple[str, Refs]]:
    for component, layers in _clips(base).items():
        second = component == "text_encoder_2"
        starts = ("lora_te2_",) if second else ("lora_te_", "lora_te1_")
        for tail, ref in layers.items():
            if tail.startswith("encoder.layers.") and tail.split(".", 3)[3] in _CLIP_LAYERS:
                for start in starts:
                    yield f"{start}text_model_{flat(tail)}", (ref,)
                yield f"{component}.text_model.{tail}", (ref,)
        projection = layers.get("text_projection")
        # a key without a layer here is one for something that the base model has elsewhere
        yield f"{starts[-1]}text_projection", () if projection is None else (projection,)


def _of_t5(base: BaseModel, numbers: tuple[str, ...]) -> Iterator[tuple[str, Refs]]:
    own = {"sd3": "text_encoder_3", "flux": "text_encoder_2"}.get(base.family)
    for component, layer in base.adaptable_modules():
        if component == own:
            for number in numbers:
                yield f"lora_te{number}_{flat(layer)}", (ModuleRef(component, layer),)


def _generic_text(base: BaseModel) -> Iterator[tuple[str, Refs]]:
    """What ComfyUI itself calls the layers of text encoders."""
    encoders = {"text_encoder": "clip_l", "text_encoder_2": "clip_g", "text_encoder_3": "t5xxl"}
    if base.family == "flux":
        encoders["text_encoder_2"] = "t5xxl"
    if is_sd2(base):
        encoders["text_encoder"] = "clip_h"
    for component, layer in base.adaptable_modules():
        if (name := encoders.get(component)) is None:
            continue
        refs = (ModuleRef(component, layer),)
        if name == "t5xxl":
            yield f"text_encoders.transformer.{layer}", refs
        elif layer.startswith("encoder."):  # newer libraries leave a level out
            layer = f"text_model.{layer}"
        yield f"text_encoders.{name}.transformer.{layer}", refs


def is_sd2(base: BaseModel) -> bool:
    """Whether the base model is a Stable Diffusion 2, told by the width of its text encoder."""
    config = getattr(base.components.get("text_encoder"), "config", None)
    return base.family == "sd" and getattr(config, "hidden_size", 0) == _SD2_WIDTH


def flat(name: str) -> str:
    """The name with underscores for dots."""
    return name.replace(".", "_")
