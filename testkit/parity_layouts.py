"""Cases of `benchmarks.parity` that other loaders than diffusers read, by their names or shapes.

The file is written as that loader's users have it. The reference is the same change told a second
way: layer by layer in diffusers' names, loaded by diffusers, or put into the weights by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from loragate_server.models import BaseModel
from testkit import adapter_files as files
from testkit import published_keys as published
from testkit.adapter_files import Case
from testkit.tiny_models import tiny_base, tiny_pipeline

RANK, ALPHA = 4, 6.0
Maker = Callable[[Path], Case]
Named = Iterator[tuple[str, tuple[str, ...]]]
"""Names in a file, each with the layers of the denoiser whose rows it holds, in their order."""

WAYS = {
    "down": (".lora_down.weight", ".lora_up.weight"),
    "A": (".lora_A.weight", ".lora_B.weight"),
    "default": (".lora_A.default.weight", ".lora_B.default.weight"),
    "bare": (".lora_A", ".lora_B"),
    "linear": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
}


@dataclass(frozen=True)
class Layout:
    """How a file writes the LoRA of a denoiser.

    Attributes:
        family: of the base model.
        names: the name of each layer, or of several, without its end.
        way: which ends, see `WAYS`.
        alpha: whether each name has an alpha.
        loader: which loader reads it.
        reshape: what is done to the factors before they are written.
    """

    family: str
    names: Callable[[BaseModel], Named]
    way: str = "down"
    alpha: bool = True
    loader: str = "comfyui"
    reshape: Callable[[Tensor], Tensor] = lambda tensor: tensor

    def __call__(self, folder: Path) -> Case:
        base, generator = base_of(self.family), torch.Generator().manual_seed(17)
        written: dict[str, Tensor] = {}
        told: dict[str, Tensor] = {}
        scale = ALPHA / RANK if self.alpha else 1.0
        for name, layers in self.names(base):
            shapes = [weight_of(base, layer).shape for layer in layers]
            rows, ones = [shape[0] for shape in shapes], (1,) * (len(shapes[0]) - 2)
            down = 0.2 * torch.randn(RANK, *shapes[0][1:], generator=generator)
            up = 0.2 * torch.randn(sum(rows), RANK, *ones, generator=generator)
            ends = WAYS[self.way]
            written |= {name + ends[0]: self.reshape(down), name + ends[1]: self.reshape(up)}
            if self.alpha:
                written[f"{name}.alpha"] = torch.tensor(ALPHA)
            for layer, part in zip(layers, up.split(rows), strict=True):
                stem = f"{base.denoiser_component}.{layer}"
                told[f"{stem}.lora_A.weight"] = down.clone()  # a file holds each by itself
                told[f"{stem}.lora_B.weight"] = scale * part
        reference = files.loaded_by_diffusers(self.family, files.save(folder / "told", told))
        file = files.save(folder / "written", written)
        return Case(file, None, reference.reference, files.STRENGTH, self.loader)


@cache
def base_of(family: str) -> BaseModel:
    """The tiny model of a family, made once: its layers are looked at, never changed."""
    return tiny_base(family)


def weight_of(base: BaseModel, layer: str) -> Tensor:
    """The weight of a layer of the denoiser."""
    weight = base.denoiser.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return weight


def layers_of(base: BaseModel, *ends: str) -> Iterator[str]:
    """The denoiser's layers of these last names."""
    for component, layer in base.adaptable_modules():
        if component == base.denoiser_component and layer.endswith(ends):
            yield layer


ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def flat(name: str) -> str:
    """With underscores for dots."""
    return name.replace(".", "_")


def prefixed(start: str, *ends: str, dotted: bool = False) -> Callable[[BaseModel], Named]:
    """Every layer of some last names by its own name, behind a prefix."""

    def names(base: BaseModel) -> Named:
        for layer in layers_of(base, *(ends or ATTENTION)):
            yield start + (layer if dotted else flat(layer)), (layer,)

    return names


def processors(start: str) -> Callable[[BaseModel], Named]:
    """Attention of UNets as ComfyUI calls it in dotted names."""

    def names(base: BaseModel) -> Named:
        for layer in layers_of(base, *ATTENTION):
            yield start + layer.replace(".to_", ".processor.to_").removesuffix(".0"), (layer,)

    return names


def originals(start: str, *, dotted: bool = False) -> Callable[[BaseModel], Named]:
    """Every layer that an original checkpoint has, by its name there."""

    def names(base: BaseModel) -> Named:
        held: dict[str, list[str]] = {}
        for original, layer in _originals(base):
            held.setdefault(original, []).append(layer)
        for original, layers in held.items():
            yield start + (original if dotted else flat(original)), tuple(layers)

    return names


def _originals(base: BaseModel) -> Iterator[tuple[str, str]]:
    if base.family == "sd3":
        last = f"transformer_blocks.{base.denoiser.config.num_layers - 1}.norm1_context.linear"
        for layer, original, _ in published.sd3_originals(base):
            if layer not in (last, "norm_out.linear"):  # their halves are turned
                yield original, layer
    elif base.family == "flux":
        for layer, original, _ in published.flux_originals(base):
            if layer != "norm_out.linear":
                yield original, layer
    else:
        yield from published.unet_originals(base).items()


def lycoris(family: str, config: Callable[[], Any], start: str = "lycoris") -> Maker:
    """A LoHa or LoKr as SimpleTuner writes it; peft holds the reference."""

    def make(folder: Path) -> Case:
        component = "unet" if family in ("sd", "sdxl") else "transformer"
        made = config()
        module, pipeline = files.donor(family, component, made)
        files.set_strength(module, "donor", files.STRENGTH.denoiser)
        state = files.adapter_state(module)
        tensors = files.kohya_names(state, start, lambda _: made.alpha, files.same)
        return Case(files.save(folder, tensors), None, pipeline, files.STRENGTH, "comfyui")

    return make


def whole(
    family: str, names: Callable[[BaseModel], Named], *, bias: bool = False, loader: str = "comfyui"
) -> Maker:
    """Changes that the file holds as they are; the reference has them in its weights."""

    def make(folder: Path) -> Case:
        base, pipeline = base_of(family), tiny_pipeline(family)
        denoiser = getattr(pipeline, base.denoiser_component)
        generator = torch.Generator().manual_seed(19)
        written: dict[str, Tensor] = {}
        for name, layers in names(base):
            modules = [denoiser.get_submodule(layer) for layer in layers]
            whole_shape = sum(len(m.weight) for m in modules), *modules[0].weight.shape[1:]
            written[f"{name}.diff"] = 0.1 * torch.randn(whole_shape, generator=generator)
            if with_bias := bias and all(module.bias is not None for module in modules):
                written[f"{name}.diff_b"] = 0.1 * torch.randn(whole_shape[0], generator=generator)
            rows = [len(module.weight) for module in modules]
            for index, module in enumerate(modules):
                _add(module.weight, written[f"{name}.diff"].split(rows)[index])
                if with_bias:
                    _add(module.bias, written[f"{name}.diff_b"].split(rows)[index])
        return Case(files.save(folder, written), None, pipeline, files.STRENGTH, loader)

    return make


def _add(parameter: nn.Parameter, change: Tensor) -> None:
    parameter.data += files.STRENGTH.denoiser * change


def in_type(family: str, layout: Maker, dtype: torch.dtype) -> Maker:
    """A case that diffusers reads, with its weights in another number format."""

    def make(folder: Path) -> Case:
        case = layout(folder / "before")
        tensors = {
            name: tensor if name.endswith("alpha") else tensor.to(dtype)
            for name, tensor in load_file(case.file).items()
        }
        return files.loaded_by_diffusers(family, files.save(folder / "after", tensors))

    return make


def with_projection(folder: Path) -> Case:
    """SDXL's second text encoder ends in a projection, which kohya's names hold, too."""
    base, generator = base_of("sdxl"), torch.Generator().manual_seed(23)
    pipeline = tiny_pipeline("sdxl")
    weight = pipeline.text_encoder_2.text_projection.weight
    down = 0.2 * torch.randn(RANK, weight.shape[1], generator=generator)
    up = 0.2 * torch.randn(weight.shape[0], RANK, generator=generator)
    weight.data += files.STRENGTH.text_encoder * ALPHA / RANK * (up @ down)
    ends: Mapping[str, Tensor] = {
        "lora_down.weight": down,
        "lora_up.weight": up,
        "alpha": torch.tensor(ALPHA),
    }
    tensors = {f"lora_te2_text_projection.{end}": tensor for end, tensor in ends.items()}
    assert base.components["text_encoder_2"] is not None
    return Case(files.save(folder, tensors), None, pipeline, files.STRENGTH, "comfyui")
