"""Hypothesis strategies for adapter files: names, ranks, alphas, headers and configurations.

They aim at what loaders read differently: alphas that are missing, distinct, whole, zero or
negative, decoys for layers that do not exist, ranks of their own, patterns that are expressions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from loragate_server.adapter.adapter import ModuleRef
from testkit.tiny_models import tiny_base

ATTENTION = (".to_q", ".to_k", ".to_v", ".to_out.0")
PLAIN = (".proj_in", ".proj_out", ".ff.net.0.proj", ".ff.net.2", ".conv1", ".time_emb_proj")
TEXT = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")


@dataclass(frozen=True)
class AdapterFile:
    """An adapter as a stranger might write it.

    Attributes:
        tensors: by name, in the order of the file.
        header: the header's metadata.
        config: what lies beside it as `adapter_config.json`; None for nothing.
    """

    tensors: dict[str, Tensor] = field(repr=False)
    header: dict[str, str]
    config: dict[str, Any] | None = None

    def __repr__(self) -> str:
        shapes = {
            name: (tuple(t.shape) if t.numel() > 1 else t.item())
            for name, t in self.tensors.items()
        }
        return f"AdapterFile({shapes}, header={self.header}, config={self.config})"


@cache
def layers(family: str) -> dict[ModuleRef, nn.Module]:
    """Linear and convolutional layers of the tiny model that trainers adapt."""
    return {
        ModuleRef(component, name): module
        for (component, name), module in tiny_base(family).adaptable_modules().items()
        if name.endswith((*ATTENTION, *PLAIN, *TEXT)) and component != "text_encoder_3"
    }


def pair(module: nn.Module, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random factors of a layer, down and up."""
    generator = torch.Generator().manual_seed(seed)
    shape = module.weight.shape
    assert isinstance(shape, torch.Size)
    ones = (1,) * (len(shape) - 2)
    down = torch.randn(rank, *shape[1:], generator=generator)
    return down, torch.randn(shape[0], rank, *ones, generator=generator)


ALPHAS = st.one_of(
    st.none(),
    st.sampled_from([0.5, 1.0, 2.0, 4.0, 4.0, 4.0, 6.0, 8.0]),
    st.sampled_from([0.0, -4.0, 4.01, 3.0, 1000.0]),
)
"""Of one layer; None where it has no alpha of its own."""
RANKS = st.sampled_from([1, 2, 2, 2, 3, 4])


def _alpha(value: float, whole: bool) -> Tensor:
    return torch.tensor(int(value)) if whole else torch.tensor(value)


@st.composite
def kohya(draw: st.DrawFn, family: str) -> AdapterFile:
    """kohya's names: `lora_unet_...lora_down.weight` with an alpha per layer, or none."""
    known = list(layers(family))
    chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=8, unique=True))
    same = draw(st.booleans())
    alpha_of_all, whole = draw(ALPHAS), draw(st.booleans())
    tensors: dict[str, Tensor] = {}
    prefixes = {"unet": "lora_unet_", "text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}
    if family == "sdxl":
        prefixes["text_encoder"] = "lora_te1_"
    for index, ref in enumerate(chosen):
        name = ref.module
        if ref.component != "unet" and not name.startswith("text_model."):
            name = f"text_model.{name}"
        stem = prefixes[ref.component] + name.replace(".", "_")
        down, up = pair(layers(family)[ref], draw(RANKS), index)
        tensors[f"{stem}.lora_down.weight"], tensors[f"{stem}.lora_up.weight"] = down, up
        alpha = alpha_of_all if same else draw(ALPHAS)
        if alpha is not None:
            tensors[f"{stem}.alpha"] = _alpha(alpha, whole)
    for index in range(draw(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 1, 3]))):
        stem = f"lora_unet_nothing_{index}"
        tensors[f"{stem}.lora_down.weight"] = torch.zeros(2, 4)
        tensors[f"{stem}.lora_up.weight"] = torch.zeros(4, 2)
        tensors[f"{stem}.alpha"] = torch.tensor(-4.0)
    order = draw(st.permutations(list(tensors))) if draw(st.booleans()) else list(tensors)
    return AdapterFile({name: tensors[name] for name in order}, {"format": "pt"})


@st.composite
def dotted(draw: st.DrawFn, family: str) -> AdapterFile:
    """diffusers' names, with alphas beside them or a configuration in the header, or neither."""
    denoiser = "unet" if family in ("sd", "sdxl") else "transformer"
    known = [ref for ref in layers(family) if ref.component == denoiser]
    if draw(st.booleans()):
        known = list(layers(family))
    chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=6, unique=True))
    rank = draw(RANKS)
    mixed = draw(st.booleans())
    tensors: dict[str, Tensor] = {}
    ranks: dict[ModuleRef, int] = {}
    style = draw(st.sampled_from(["lora_A", "lora_A", "lora_A", "lora.down", "lora_down"]))
    down_end, up_end = {
        "lora_A": ("lora_A.weight", "lora_B.weight"),
        "lora.down": ("lora.down.weight", "lora.up.weight"),
        "lora_down": ("lora_down.weight", "lora_up.weight"),
    }[style]
    ending = draw(st.sampled_from([None, None, None, "alpha", "lora_alpha", "network_alpha"]))
    for index, ref in enumerate(chosen):
        ranks[ref] = draw(RANKS) if mixed else rank
        stem = f"{ref.component}.{ref.module}"
        down, up = pair(layers(family)[ref], ranks[ref], index)
        tensors[f"{stem}.{down_end}"], tensors[f"{stem}.{up_end}"] = down, up
        alpha = draw(ALPHAS)
        if ending is not None and alpha is not None and alpha >= 0:
            tensors[f"{stem}.{ending}"] = _alpha(alpha, draw(st.booleans()))
    header = {"format": "pt"}
    if draw(st.booleans()):
        declared: dict[str, Any] = {}
        for component in {ref.component for ref in chosen}:
            own = {ref.module: rank for ref, rank in ranks.items() if ref.component == component}
            config = draw(configurations(own, targets=st.just(sorted(own))))
            declared |= {f"{component}.{key}": value for key, value in config.items()}
        header["lora_adapter_metadata"] = json.dumps(declared)
    return AdapterFile(tensors, header)


@st.composite
def configurations(
    draw: st.DrawFn, ranks: dict[str, int], *, targets: st.SearchStrategy[Any]
) -> dict[str, Any]:
    """A peft configuration for layers of these ranks; mostly one that fits."""
    rank = next(iter(ranks.values()))
    found: dict[str, Any] = {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": draw(st.sampled_from([1, 4, 6, 8, 16, 0, -4, 0.5])),
        "target_modules": draw(targets),
        "rank_pattern": {name: own for name, own in ranks.items() if own != rank},
    }
    if draw(st.booleans()):
        keys = draw(st.lists(st.sampled_from(_spellings(list(ranks))), max_size=4, unique=True))
        found["alpha_pattern"] = {key: draw(st.sampled_from([1, 2, 8, 16, -4])) for key in keys}
    if draw(st.integers(0, 4)) == 0:
        found["use_rslora"] = True
    return found


def _spellings(names: Sequence[str]) -> list[str]:
    """Keys by which a pattern may mean a layer: whole, its end, anchored, with expressions."""
    found = []
    for name in names:
        end = name.rpartition(".")[2]
        found += [
            name,
            end,
            f"^{name}",
            name.replace("_", "."),
            ".".join(name.split(".")[-2:]).replace("_", "."),
            f"{end[:-1]}.",
            f"{end}|mid_block",
            ".*" + end,
            r"attn\d\." + end,
        ]
    return [each for each in found if "0" not in each[-1:] or "." in each]


@st.composite
def peft_folders(draw: st.DrawFn, family: str) -> AdapterFile:
    """A folder as peft saves it, whose configuration chooses some of its layers."""
    denoiser = "unet" if family in ("sd", "sdxl") else "transformer"
    known = [ref for ref in layers(family) if ref.component == denoiser]
    chosen = draw(st.lists(st.sampled_from(known), min_size=1, max_size=8, unique=True))
    rank, mixed = draw(RANKS), draw(st.booleans())
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for index, ref in enumerate(chosen):
        ranks[ref.module] = draw(RANKS) if mixed else rank
        down, up = pair(layers(family)[ref], ranks[ref.module], index)
        stem = f"base_model.model.{ref.module}"
        tensors[f"{stem}.lora_A.weight"], tensors[f"{stem}.lora_B.weight"] = down, up
    names = list(ranks)
    ends = sorted({name.rpartition(".")[2] for name in names} - {"0", "2"})
    options: list[Any] = [names, [*ends, "to_q"], ["to_q"], ends or names]
    options += [rf".*\.({'|'.join(ends)})" if ends else names, ".*attn1.*to_[qk]"]
    config = draw(configurations(ranks, targets=st.sampled_from(options)))
    if draw(st.integers(0, 3)) == 0:
        config["exclude_modules"] = draw(st.sampled_from([["to_q"], names[:1], r".*to_k", []]))
    if draw(st.integers(0, 3)) == 0:
        config["layers_to_transform"] = draw(st.sampled_from([0, 1, [0], [0, 1], []]))
        if draw(st.booleans()):
            config["layers_pattern"] = draw(
                st.sampled_from([["attentions"], "transformer_blocks", ["up_blocks", "resnets"]])
            )
    if draw(st.integers(0, 5)) == 0:
        config["init_lora_weights"] = draw(st.sampled_from([True, False, "gaussian"]))
    return AdapterFile(tensors, {"format": "pt"}, config)
