"""Random files in spellings that few loaders read: prefixes, ends, shapes and tensors too many."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.loader_parity.files import RANKS, AdapterFile, layers, pair
from loragate_server.adapter.adapter import ModuleRef

_ENDS = (
    ("lora_A.weight", "lora_B.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_A", "lora_B"),
)
_STRAY = (
    "{stem}.diff",
    "{stem}.diff_b",
    "{stem}.dora_scale",
    "{stem}.oft_blocks",
    "lora_unet_nothing.lora_up.weight",
    "transformer.nothing.lora_A.weight",
    "unet.nothing.lora_A.weight",
    "nothing.weight",
)


@st.composite
def spellings(draw: st.DrawFn, family: str) -> AdapterFile:
    """A LoRA of some layers, all in one spelling, and perhaps a tensor that does not belong."""
    text = draw(st.integers(0, 4)) == 0
    known = [ref for ref in layers(family) if text or not ref.component.startswith("text")]
    chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=6, unique=True))
    start = draw(st.sampled_from(_starts(family)))
    down_end, up_end = draw(st.sampled_from(_ENDS))
    alphas = draw(st.integers(0, 3)) == 0
    shape = draw(st.sampled_from(["as it is", "as it is", "flat", "convolution"]))
    tensors: dict[str, Tensor] = {}
    stem = ""
    for index, ref in enumerate(chosen):
        stem = _stem(start, ref)
        factors = pair(layers(family)[ref], draw(RANKS), index)
        down, up = (_reshaped(factor, shape) for factor in factors)
        tensors[f"{stem}.{down_end}"], tensors[f"{stem}.{up_end}"] = down, up
        if alphas:
            tensors[f"{stem}.alpha"] = torch.tensor(4.0)
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from(_STRAY)).format(stem=stem)
        tensors[name] = torch.ones(4, 4)
    return AdapterFile(tensors, {"format": "pt"})


def _starts(family: str) -> tuple[str, ...]:
    denoiser = "unet." if family in ("sd", "sdxl") else "transformer."
    return (
        denoiser,
        denoiser,
        "",
        "lycoris_",
        "lora_transformer_",
        "lora_unet_",
        "diffusion_model.",
        "base_model.model.",
        f"{denoiser}base_model.model.",
    )


def _stem(start: str, ref: ModuleRef) -> str:
    if ref.component.startswith("text"):
        return f"{ref.component}.{ref.module}"
    return start + (ref.module.replace(".", "_") if start.endswith("_") else ref.module)


def _reshaped(factor: Tensor, shape: str) -> Tensor:
    """A 1 x 1 convolution's as a linear layer's, or the other way round."""
    if shape == "flat" and factor[0, 0].numel() == 1:
        return factor.flatten(1)
    return factor[..., None, None] if shape == "convolution" and factor.dim() == 2 else factor
