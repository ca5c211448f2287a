"""Loaders that are asked together say what each of them says alone, in whatever order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import permutations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.loader_parity.compare import NOT_VOUCHED, VOUCHED, compare, no_noise
from benchmarks.loader_parity.files import AdapterFile
from benchmarks.loader_parity.spellings import spellings
from loragate_server.adapter.algebra import LowRank
from loragate_server.intake.convert import Converted, Reading, convert
from loragate_server.intake.loader_rules.names import LOADERS
from loragate_server.models.apply import layer_shape
from testkit.tiny_models import shared_base

FEW = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))


def read(family: str, tensors: dict[str, Tensor], loaders: Sequence[str]) -> Converted:
    with no_noise():
        return convert(tensors, shared_base(family), loaders=loaders)


def account(one: Reading) -> Hashable:
    scales = {
        (ref, f"{delta.scale:.6g}" if isinstance(delta, LowRank) else "")
        for ref, delta in one.deltas.items()
    }
    return frozenset(scales), one.coverage


def said_of(found: Converted, loader: str) -> Hashable:
    """What is told of one loader: its readings, and whether it refuses or cannot be followed."""
    readings = frozenset(account(one) for one in found.readings if loader in one.loaders)
    return readings, found.refused.get(loader), found.unknown.get(loader)


def outcome(found: Converted) -> Hashable:
    readings = frozenset((frozenset(one.loaders), account(one)) for one in found.readings)
    refused, unknown = frozenset(found.refused.items()), frozenset(found.unknown.items())
    return readings, refused, unknown, frozenset(found.causes)


@pytest.mark.parametrize("family", ["sd", "sd3", "flux"])
def test_a_loader_s_certainty_or_doubt_is_its_own_whoever_is_asked_beside(family: str) -> None:
    seen = set()

    @FEW
    @given(spellings(family), spellings(family), st.permutations(LOADERS))
    def agree(made: AdapterFile, other: AdapterFile, order: list[str]) -> None:
        tensors = {**made.tensors, **other.tensors}
        together = read(family, tensors, LOADERS)
        assert outcome(read(family, tensors, order)) == outcome(together)
        for loader in LOADERS:
            assert said_of(read(family, tensors, (loader,)), loader) == said_of(together, loader)
        seen.add(len(together.readings))

    agree()
    assert len(seen) > 1


def test_layers_that_one_loader_leaves_out_stay_unknown_to_another() -> None:
    """AUTOMATIC1111 knows attention alone; what SGLang makes of the other layer cannot be told."""
    layers = {f"transformer.transformer_blocks.0.attn.to_{end}": end for end in "qkv"}
    stems = {name: name.removeprefix("transformer.") for name in layers}
    stems["diffusion_model.context_embedder"] = "context_embedder"
    tensors = {}
    for stem, layer in stems.items():
        weight = layer_shape(shared_base("sd3").denoiser.get_submodule(layer)).weight
        tensors[f"{stem}.lora_A.weight"] = torch.ones(2, weight.shape[1])
        tensors[f"{stem}.lora_B.weight"] = torch.ones(len(weight), 2)
    outcomes = set()
    for order in permutations(("a1111", "sglang")):
        found = read("sd3", tensors, order)
        outcomes.add(outcome(found))
        by_loader = {loader: one for one in found.readings for loader in one.loaders}
        assert not by_loader["sglang"].coverage.complete
        assert "a1111" not in by_loader["sglang"].loaders
    assert len(outcomes) == 1


def layer_of(family: str, layer: str, stem: str, middle: str) -> dict[str, Tensor]:
    """A LoRA of one layer, whose names have something between `lora_A` and `weight`."""
    weight = layer_shape(shared_base(family).denoiser.get_submodule(layer)).weight
    return {
        f"{stem}.lora_A{middle}.weight": torch.ones(2, weight.shape[1]),
        f"{stem}.lora_B{middle}.weight": torch.ones(len(weight), 2),
    }


@pytest.mark.parametrize("family", ["sd", "sd3"])
def test_an_alpha_of_a_text_encoder_alone_ends_the_loading_by_diffusers(family: str) -> None:
    base = shared_base(family)
    layer = next(name for part, name in base.adaptable_modules() if name.endswith(".to_q"))
    tensors = layer_of(family, layer, f"{base.denoiser_component}.{layer}", "")
    assert compare(family, "diffusers", AdapterFile(tensors, {})) == VOUCHED
    tensors["text_encoder.alpha"] = torch.tensor(2.0)
    assert compare(family, "diffusers", AdapterFile(tensors, {})) == NOT_VOUCHED


@pytest.mark.parametrize("end", ["w_norm", "set_weight"])
def test_what_forge_changes_in_another_way_is_no_reason_to_say_that_it_knows_no_name(
    end: str,
) -> None:
    """It does not know how the LoRA's names end, and puts the other tensor into the layer."""
    layer, stem = "transformer_blocks.0.attn.to_q", "lycoris_transformer_blocks_0_attn_to_q"
    tensors = layer_of("flux", layer, stem, ".default")
    assert not read("flux", tensors, ("a1111",)).unknown
    tensors[f"{stem}.{end}"] = torch.ones(32, 32)
    assert end in read("flux", tensors, ("a1111",)).unknown["a1111"]
