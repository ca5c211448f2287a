"""Which layers loaders with names of their own load, against a second statement of their maps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import pytest
import torch

from loragate_server.intake.convert import convert
from loragate_server.intake.loader_rules.key_tables import KeyTable, comfyui_table, forge_table
from loragate_server.intake.loader_rules.original_names import (
    denoiser_layers,
    of_sd3,
    turned_layers,
)
from loragate_server.intake.loader_rules.webui_tables import A1111Table, SdNextTable
from loragate_server.intake.naming import DOWN, UP
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel
from testkit import published_keys as published
from testkit import published_webuis as webuis
from testkit.lanes import daily
from testkit.tiny_models import shared_base

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, on names that are odd

ENDS = (
    (".lora_down.weight", ".lora_up.weight"),
    ("_lora_down.weight", "_lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
    ("_lora.down.weight", "_lora.up.weight"),
    (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A", ".lora_B"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_A.other.weight", ".lora_B.other.weight"),
    (".down.weight", ".up.weight"),
    (".lora_down.weight", ".lora_B.weight"),
)
UNET_STARTS = (
    "", "unet.", "unet_", "lora_unet_", "lycoris_", "diffusion_model.", "diffusion_model_",
    "lora_unet_lora_unet_", "unet.unet.", "oft_unet_", "lora_unet.", "transformer.",
)  # fmt: skip
TEXT_STARTS = (
    "lora_te_", "lora_te1_", "lora_te2_", "lora_te3_", "lora_te_lora_te_", "lora_prior_te_",
    "text_encoder.", "text_encoder_2.", "text_encoder_3.", "clip_l.", "clip_g.", "t5.",
    "text_encoders.clip_l.transformer.", "text_encoders.clip_g.transformer.",
    "text_encoders.t5xxl.transformer.", "text_encoders.transformer.",
    "transformer_", "0_transformer_", "1_transformer_", "1_model_",
)  # fmt: skip
TRANSFORMER_STARTS = (
    "", "transformer.", "lora_transformer_", "lora_unet_", "lycoris_", "base_model.model.",
    "diffusion_model.", "unet.", "transformer.transformer.",
)  # fmt: skip


def mangled(name: str) -> Iterator[str]:
    """The name, and what is nearly it."""
    yield name
    yield name.replace(".to_", ".processor.to_")
    yield name.replace(".to_", ".processor.to_").removesuffix(".0")
    yield name.removesuffix(".0")
    yield name.replace("add_embedding", "class_embedding")
    yield name.replace("text_model.", "")
    yield f"text_model.{name}"
    yield f"{name}.processor"
    yield f"{name}.q_proj"
    yield name.replace("net.0.proj", "linear_in").replace("net.2", "linear_out")
    for number in re.finditer(r"\d+", name):
        for other in (f"{int(number[0]) + 1}", f"0{number[0]}"):
            yield name[: number.start()] + other + name[number.end() :]


@cache
def stems(family: str) -> tuple[str, ...]:
    base, found = shared_base(family), set()
    names: dict[tuple[str, ...], set[str]] = {}
    for component, layer in base.adaptable_modules():
        text = component.startswith("text_encoder")
        starts = TEXT_STARTS if text else UNET_STARTS if component == "unet" else TRANSFORMER_STARTS
        names.setdefault(starts, set()).add(layer)
    if base.denoiser_component == "unet":
        names[UNET_STARTS] |= set(published.unet_originals(base))
        wrong = {
            f"{side}_blocks.{place}.{part}.{end}"
            for side in ("input", "output")
            for place in range(9)
            for part in range(3)
            for end in ("op", "conv", "proj_in", "in_layers.2", "skip_connection")
        }
        found |= {f"lora_unet_{name.replace('.', '_')}" for name in wrong}
        found |= {f"diffusion_model.{name}" for name in wrong}
    if family == "flux":
        for _, original, other in published.flux_originals(base):
            names[TRANSFORMER_STARTS] |= {original, f"{original}_qkv"} | ({other} - {""})
    if family == "sd3":
        names[TRANSFORMER_STARTS] |= {original for _, original, _ in published.sd3_originals(base)}
    for starts, layers in names.items():
        for name in {each for layer in layers for each in mangled(layer)}:
            for start in starts:
                found |= {start + name, start + name.replace(".", "_")}
    return tuple(sorted(found))


def plain_stems(family: str) -> Iterator[str]:
    """Layers as they are called, in the spellings that files have."""
    for component, layer in shared_base(family).adaptable_modules():
        under = layer.replace(".", "_")
        if component.startswith("text_encoder"):
            yield from (f"lora_te{number}_{under}" for number in ("", "1", "2"))
            yield f"{component}.{layer}"
        else:
            yield from (f"lora_{component}_{under}", f"{component}.{layer}", layer)
            yield f"{component}.{layer}".replace(".to_", ".processor.to_")


def found_by(table: KeyTable, down: str, up: str) -> set[tuple[str, str]]:
    first, second = table.find(down), table.find(up)
    if first is None or second is None or (first.part, second.part) != (DOWN, UP):
        return set()
    if (first.slot, first.way) != (second.slot, second.way):
        return set()
    return {(ref.component, ref.module) for ref in first.refs}


def tables(family: str) -> dict[str, tuple[KeyTable, published.Loaded]]:
    base = shared_base(family)
    found: dict[str, tuple[KeyTable, published.Loaded]] = {
        "comfyui": (comfyui_table(base), published.comfy(base)),
        "forge": (forge_table(base), forge(base)),
    }
    if family != "flux":
        stated = a1111_of_sd3(base) if family == "sd3" else webuis.a1111(base)
        found["a1111"] = A1111Table(base), stated
    for dotted, text in ((False, False), (False, True), (True, False), (True, True)):
        own = SdNextTable(base, ("others",), dotted_peft=dotted, flat_text=text)
        stated = webuis.sdnext(base, dotted_peft=dotted, flat_text=text)
        found[f"sdnext, {dotted}, {text}"] = own, stated
    return found


def forge(base: BaseModel) -> published.Loaded:
    """Forge; of SD3 it has the original names that ComfyUI has, too, and none of diffusers."""
    own, comfy = published.comfy(base, forge=True), published.comfy(base)

    def loaded(down: str, up: str) -> set[published.Layer]:
        original = down.startswith(("lora_unet_", "diffusion_model."))
        if base.family != "sd3" or not original or not up.endswith(_OF_FORGE):
            return own(down, up)
        return comfy(down, up)

    return loaded


_OF_FORGE = (
    ".lora_up.weight", "_lora.up.weight", ".lora_B.weight", ".lora.up.weight",
    ".lora_linear_layer.up.weight",
)  # fmt: skip


def a1111_of_sd3(base: BaseModel) -> published.Loaded:
    """AUTOMATIC1111 of SD3: its own modules, and what it has for diffusers' names of attention.

    What it makes of the names of its blocks is not followed.
    """
    modules: dict[str, published.Layer] = {
        "diffusion_model_" + original.replace(".", "_"): ("transformer", layer)
        for layer, original, _ in published.sd3_originals(base)
        if not original.startswith("joint_blocks.")
    }
    config: Any = base.denoiser.config
    for number in range(config.num_layers):
        for end in ("to_q", "to_k", "to_v", "to_out.0"):
            layer = f"transformer_blocks.{number}.attn.{end}"
            modules[f"transformer.{layer}"] = ("transformer", layer)

    def target(name: str) -> tuple[published.Layer | None, str]:
        key, first, second = name.rsplit(".", 2) if name.count(".") > 1 else ("", "", "")
        flat = key.replace("lora_unet", "diffusion_model")
        return modules.get(key) or modules.get(flat), f"{first}.{second}"

    def loaded(down: str, up: str) -> set[published.Layer]:
        (first, one), (second, other) = target(down), target(up)
        ends = {("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")}
        return {first} if first and first == second and (one, other) in ends else set()

    return loaded


FAMILIES = ("sd", "sdxl", "sd3", "flux")


@pytest.mark.parametrize(
    ("family", "step"),
    daily(
        ("sd", 11), ("sdxl", 23), ("sd3", 1), ("flux", 1),
        of=[("sd", 11), ("sdxl", 23), *((family, 1) for family in FAMILIES)],
    ),
)  # fmt: skip
def test_a_loader_loads_a_name_where_its_published_map_has_it(family: str, step: int) -> None:
    """Of every so many stems; names that nothing mangles are always among them."""
    disagreements, loaded = [], dict.fromkeys(tables(family), 0)
    chosen = dict.fromkeys((*plain_stems(family), *stems(family)[::step]))
    for loader, (table, stated) in tables(family).items():
        for stem in chosen:
            for down, up in ENDS:
                ours, theirs = (
                    found_by(table, stem + down, stem + up),
                    stated(stem + down, stem + up),
                )
                loaded[loader] += bool(theirs)
                if ours != theirs:
                    disagreements.append((loader, stem + down, ours, theirs))
    assert disagreements[:20] == []
    assert min(loaded.values()) > (40 if family in ("sd", "sdxl") else 5), loaded


@pytest.mark.parametrize(
    ("family", "step"),
    # Every 331st spelling of sd is one that no loader knows.
    daily(("sd", 101), ("sdxl", 331), of=[*product(["sd", "sdxl"], [29, 101]), ("sdxl", 331)]),
)
def test_a_reading_has_the_layer_that_the_published_map_names_and_no_other(
    family: str, step: int
) -> None:
    """Whole files: each holds a layer of every spelling's own, beside one that all loaders know."""
    base = shared_base(family)
    layers, stated = base.adaptable_modules(), published.comfy(base)
    seen = 0
    for stem in stems(family)[::step]:
        for down, up in ENDS:
            targets = stated(stem + down, stem + up)
            shape = layer_shape(layers[next(iter(targets), ("unet", "conv_in"))]).weight.shape
            ones = (1,) * (len(shape) - 2)
            tensors = {
                stem + down: torch.ones(1, *shape[1:]),
                stem + up: torch.ones(shape[0], 1, *ones),
            }
            found = convert(tensors, base, loaders=("comfyui",))
            for reading in found.readings:
                if "comfyui" in reading.loaders and reading.coverage.complete:
                    assert {(r.component, r.module) for r in reading.deltas} == targets, stem + down
                    seen += 1
            if targets:
                assert found.readings[0].coverage.complete or found.unknown, stem + down
    assert seen > 5


def test_rows_of_several_layers_lie_as_in_an_original_checkpoint() -> None:
    base = shared_base("sd3")
    stated = {(original, layer): part for layer, original, part in published.sd3_originals(base)}
    turned = turned_layers(base)
    assert turned == {layer for (_, layer), part in stated.items() if part and "norm" in layer}
    fused = 0
    for original, layers in of_sd3(denoiser_layers(base)):
        parts = [stated[original, layer] for layer in layers if layer not in turned]
        assert parts == list(range(len(parts)))
        fused += len(parts) > 1
    assert fused == 5  # of picture and text in two blocks, and the second attention of the first
    assert {layer for _, layer in stated} == set(denoiser_layers(base))


def test_no_name_that_a1111_may_know_of_sd3_is_taken_for_one_that_it_leaves_out() -> None:
    """It looks names up among all modules of its model, of which those of blocks are not listed."""
    base = shared_base("sd3")
    table, originals = A1111Table(base), of_sd3(denoiser_layers(base))
    for original, _ in originals:
        for start in ("lora_unet_", "diffusion_model_"):
            assert table.find(f"{start}{original.replace('.', '_')}.lora_down.weight") is not None
    assert table.find("lora_unet_joint_blocks_0_x_block_attn_ln_q.lora_down.weight") is not None
    assert table.find("transformer.context_embedder.lora_A.weight") is None
