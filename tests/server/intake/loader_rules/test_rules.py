"""What each loader makes of layouts that loaders read differently, by the defining formulas."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.adapter.algebra import LowRank
from loragate_server.intake.convert import Converted, convert
from loragate_server.intake.loader_rules.names import EVERY_SCALE, UNSCALED
from scripts.loader_table import BEGIN, DOCUMENT, END, table
from testkit.tiny_models import shared_base

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, on files that are odd

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k"
OUT = "mid_block.attentions.0.proj_out"
FLUX = "transformer_blocks.0.attn.to_q"


def pair(family: str, component: str, layer: str, rank: int = 2) -> tuple[Tensor, Tensor]:
    weight = shared_base(family).components[component].get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    ones = (1,) * (weight.dim() - 2)
    generator = torch.Generator().manual_seed(len(layer))
    return (
        torch.randn(rank, *weight.shape[1:], generator=generator),
        torch.randn(len(weight), rank, *ones, generator=generator),
    )


def kohya(alphas: Mapping[str, float | None], rank: int = 2) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for layer, alpha in alphas.items():
        stem = "lora_unet_" + layer.replace(".", "_")
        down, up = pair("sd", "unet", layer, rank)
        tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
        if alpha is not None:
            tensors[f"{stem}.alpha"] = torch.tensor(alpha)
    return tensors


def dotted(family: str, layer: str, middle: tuple[str, str], rank: int = 2) -> dict[str, Tensor]:
    component = shared_base(family).denoiser_component
    down, up = pair(family, component, layer, rank)
    stem = f"{component}.{layer}"
    return {f"{stem}{middle[0]}": down, f"{stem}{middle[1]}": up}


PEFT_ENDS = (".lora_A.weight", ".lora_B.weight")


def scales(found: Converted, layer: str) -> dict[str, float]:
    """Loader to the scale at which it applies the layer; without those that refuse."""
    told = {}
    for reading in found.readings:
        for ref, delta in reading.deltas.items():
            if ref.module == layer:
                assert isinstance(delta, LowRank)
                told |= dict.fromkeys(reading.loaders, delta.scale)
    return told


def read(tensors: dict[str, Tensor], family: str = "sd", **options: Any) -> Converted:
    return convert(tensors, shared_base(family), **options)


def test_alphas_of_their_own_count_per_layer_except_for_diffusers_attention() -> None:
    found = read(kohya({QUERY: 4.0, KEY: 4.01, OUT: 1.0, "conv_in": 4.0}))
    assert scales(found, KEY) == {
        "comfyui": pytest.approx(4.01 / 2),
        "a1111": pytest.approx(4.01 / 2),
        "diffusers": 2.0,
    }
    assert set(scales(found, OUT).values()) == {0.5}
    assert found.refused["vllm-omni"] == "it does not know kohya's names"


def test_silent_layers_with_another_alpha_turn_a_file_round_for_diffusers_alone() -> None:
    tensors = kohya({QUERY: 4.0, KEY: 4.01, "conv_in": -4.0, "conv_out": -4.0})
    for name in tensors:
        if "conv" in name and name.endswith(".weight"):
            tensors[name] = torch.zeros_like(tensors[name])
    told = scales(read(tensors), QUERY)
    assert told["diffusers"] == -2.0
    assert told["comfyui"] == told["a1111"] == 2.0
    assert told[UNSCALED] == 1.0  # a scale below 0 may be left out by a loader


def test_an_alpha_on_some_layers_alone_is_the_others_too_for_diffusers() -> None:
    told = scales(read(kohya({QUERY: 1.0, KEY: None})), KEY)
    assert told == {"diffusers": 0.5, "comfyui": 1.0, "a1111": 1.0}


def test_files_on_which_the_loaders_agree_have_one_reading() -> None:
    assert [r.loaders for r in read(kohya({QUERY: 1.0, KEY: 1.0})).readings] == [
        ("diffusers", "comfyui", "a1111")
    ]
    plain = read(dotted("sd", OUT, PEFT_ENDS)).readings
    assert [r.loaders for r in plain] == [("diffusers", "comfyui", "a1111", "vllm-omni")]


@pytest.mark.parametrize("whole", [torch.int32, torch.int64])
def test_an_alpha_that_is_a_whole_number_counts(whole: torch.dtype) -> None:
    tensors = kohya({QUERY: 1.0, KEY: 1.0})
    tensors = {n: t.to(whole) if n.endswith("alpha") else t for n, t in tensors.items()}
    assert set(scales(read(tensors), QUERY).values()) == {0.5}


def test_an_alpha_beside_a_processors_name_counts_where_diffusers_refuses() -> None:
    ends = (".processor.to_k_lora.down.weight", ".processor.to_k_lora.up.weight")
    tensors = dotted("sd", KEY, (ends[0], ends[1]))
    tensors = {name.replace(".to_k.processor", ".processor"): t for name, t in tensors.items()}
    stem = next(iter(tensors)).removesuffix("_lora.down.weight")
    tensors[f"{stem}.alpha"] = torch.tensor(-2.0)
    found = read(tensors)
    assert "do not hold 'lora'" in found.refused["diffusers"]
    told = scales(found, KEY)
    assert told["comfyui"] == told["a1111"] == told[EVERY_SCALE] == -1.0
    assert told[UNSCALED] == 1.0


def test_an_alpha_that_names_its_layer_in_another_spelling_is_tried() -> None:
    ends = (".processor.to_k_lora.down.weight", ".processor.to_k_lora.up.weight")
    tensors = {
        name.replace(".to_k.processor", ".processor"): t
        for name, t in dotted("sd", KEY, (ends[0], ends[1])).items()
    }
    tensors[f"unet.{KEY}.alpha"] = torch.tensor(-2.0)
    assert scales(read(tensors), KEY)[EVERY_SCALE] == -1.0


def test_a_header_counts_for_those_that_read_it() -> None:
    metadata = {"unet.r": 2, "unet.lora_alpha": -4, "unet.target_modules": [QUERY]}
    told = scales(read(dotted("sd", QUERY, PEFT_ENDS), metadata=metadata), QUERY)
    assert told["diffusers"] == -2.0
    assert told["a1111"] == told["vllm-omni"] == told[UNSCALED] == 1.0


@pytest.mark.parametrize("pattern", ["attn1.to.q", "attn1.to_q", "attn..to_q", r"attn\d\.to_q"])
def test_a_pattern_is_an_expression_as_for_peft(pattern: str) -> None:
    metadata = {
        "unet.r": 2,
        "unet.lora_alpha": 0,
        "unet.alpha_pattern": {pattern: 16},
        "unet.target_modules": [QUERY],
    }
    assert scales(read(dotted("sd", QUERY, PEFT_ENDS), metadata=metadata), QUERY)["diffusers"] == 8


def test_an_expression_that_could_run_for_ever_is_not_run_and_not_vouched_for() -> None:
    metadata = {
        "unet.r": 2,
        "unet.lora_alpha": 2,
        "unet.alpha_pattern": {r"(?:(?:\w+\.?)+)+X": 16},
        "unet.target_modules": [QUERY],
    }
    found = read(dotted("sd", QUERY, PEFT_ENDS), metadata=metadata)
    assert "no plain pattern" in found.unknown["diffusers"]


def test_ranks_of_their_own_divide_by_their_own() -> None:
    tensors = kohya({QUERY: 2.0}, rank=4) | kohya({KEY: 1.0, OUT: 1.0}, rank=2)
    found = read(tensors)
    assert scales(found, QUERY)["comfyui"] == scales(found, KEY)["comfyui"] == 0.5


def test_flux_alphas_beside_diffusers_names_are_left_out_by_diffusers_alone() -> None:
    tensors = dotted("flux", FLUX, (".lora_down.weight", ".lora_up.weight"))
    tensors[f"transformer.{FLUX}.alpha"] = torch.tensor(8.0)
    told = scales(read(tensors, "flux"), FLUX)
    assert told["diffusers"] == told[UNSCALED] == 1.0
    assert told["comfyui"] == told["sglang"] == told["vllm-omni"] == 4.0


def test_sd3_alphas_beside_diffusers_names_scale_for_all_but_diffusers() -> None:
    tensors = dotted("sd3", FLUX, PEFT_ENDS, rank=4)
    tensors[f"transformer.{FLUX}.alpha"] = torch.tensor(4000.0)
    found = read(tensors, "sd3")
    assert "lora" in found.refused["diffusers"]
    told = scales(found, FLUX)
    assert told["comfyui"] == told["sglang"] == 1000.0
    assert told[UNSCALED] == 1.0


@pytest.mark.parametrize("key", ["lora_alpha", "network_alpha"])
def test_an_alpha_of_the_header_counts_for_sglang(key: str) -> None:
    told = scales(read(dotted("flux", FLUX, PEFT_ENDS), "flux", header={key: "16"}), FLUX)
    assert told["sglang"] == 8.0
    assert told["diffusers"] == 1.0


def test_a_configuration_beside_diffusers_names_counts_for_sglang_alone() -> None:
    config = {"r": 2, "lora_alpha": 16, "target_modules": ["to_q"]}
    told = scales(read(dotted("flux", FLUX, PEFT_ENDS), "flux", config=config), FLUX)
    assert told["sglang"] == 8.0
    assert told["diffusers"] == told["comfyui"] == 1.0


def test_a_folder_is_what_its_configuration_chooses_for_peft_and_all_for_others() -> None:
    tensors = {}
    for layer in (QUERY, KEY):
        down, up = pair("sd", "unet", layer)
        tensors[f"base_model.model.{layer}.lora_A.weight"] = down
        tensors[f"base_model.model.{layer}.lora_B.weight"] = up
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["to_q"]}
    found = read(tensors, config=config)
    by_peft = next(r for r in found.readings if "peft" in r.loaders)
    assert [ref.module for ref in by_peft.deltas] == [QUERY]
    assert by_peft.coverage.complete
    assert scales(found, KEY)["vllm-omni"] == 2.0


def test_tucker_convolutions_are_read_at_alpha_over_rank() -> None:
    layer = "up_blocks.0.resnets.0.conv1"
    weight = shared_base("sd").components["unet"].get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    out, into = weight.shape[:2]
    stem = "lora_unet_" + layer.replace(".", "_")
    down, mid, up = torch.randn(3, into, 1, 1), torch.randn(3, 3, 3, 3), torch.randn(out, 3, 1, 1)
    tensors = {
        f"{stem}.lora_down.weight": down,
        f"{stem}.lora_mid.weight": mid,
        f"{stem}.lora_up.weight": up,
        f"{stem}.alpha": torch.tensor(1.5),
    }
    found = read(tensors)
    [reading] = found.readings
    assert reading.coverage.complete
    delta = reading.deltas[ModuleRef("unet", layer)]
    assert isinstance(delta, LowRank)
    wanted = 0.5 * torch.einsum("or,rshw,si->oihw", up.flatten(1), mid, down.flatten(1))
    torch.testing.assert_close(delta.product() * delta.scale, wanted)


def test_a_file_that_no_loader_loads_says_why_for_each() -> None:
    tensors = dotted("sd", QUERY, PEFT_ENDS)
    tensors[f"unet.{QUERY}.alpha"] = torch.tensor(4.0)
    found = read(tensors, loaders=("diffusers", "peft"))
    assert [r.loaders for r in found.readings if r.loaders] in ([], [(UNSCALED,), (EVERY_SCALE,)])
    assert set(found.refused) == {"diffusers", "peft"}


def test_the_table_in_the_documents_is_what_the_rules_say() -> None:
    _, _, rest = DOCUMENT.read_text("utf-8").partition(BEGIN)
    written, found, _ = rest.partition(END)
    assert found
    assert written == f"\n{table()}\n"


def test_factors_whose_product_fits_no_layer_take_no_memory() -> None:
    stem = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {
        f"{stem}.lokr_w1": torch.ones(200, 1),
        f"{stem}.lokr_w2": torch.ones(200_000, 1),
        f"{stem}.alpha": torch.tensor(1.0),
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [reading] = read(tensors).readings
    assert not reading.coverage.complete
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown_bytes < 32 << 20


def own_scales(found: Converted, layer: str, loader: str) -> set[float]:
    """Every scale at which the products of a loader's family apply a layer."""
    return {
        round(delta.scale, 6)
        for reading in found.readings
        if loader in reading.loaders
        for ref, delta in reading.deltas.items()
        if ref.module == layer and isinstance(delta, LowRank)
    }


def test_automatic1111_knows_no_alpha_beside_factors_in_pefts_way() -> None:
    down, up = pair("sd", "unet", QUERY)
    stem = "lora_unet_" + QUERY.replace(".", "_")
    tensors = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    found = read(tensors | {f"{stem}.alpha": torch.tensor(0.004)})
    assert own_scales(found, QUERY, "comfyui") == {0.002}
    assert own_scales(found, QUERY, "a1111") == {0.002, 1.0}
    assert own_scales(read(tensors), QUERY, "a1111") == {1.0}


def _loaded_together(found: Converted, loader: str) -> list[set[str]]:
    return [{r.module for r in one.deltas} for one in found.readings if loader in one.loaders]


@pytest.mark.parametrize("missing", ["", "q_proj", "k_proj", "v_proj", "out_proj"])
def test_automatic1111_loads_the_attention_of_open_clip_in_whole_or_not(missing: str) -> None:
    tensors = {}
    layers = [f"text_model.encoder.layers.0.self_attn.{end}_proj" for end in ("q", "k", "v", "out")]
    layers += ["text_model.encoder.layers.0.mlp.fc1"]
    for layer in layers:
        if not missing or not layer.endswith(missing):
            stem = f"lora_te2_{layer.replace('.', '_')}"
            down, up = pair("sdxl", "text_encoder_2", layer)
            tensors |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    found = read(tensors, "sdxl")
    every = {layer for layer in layers if not missing or not layer.endswith(missing)}
    assert every in _loaded_together(found, "comfyui")
    assert every in _loaded_together(found, "a1111")  # Forge, which has no such module
    assert (layers[-1:] in [[*one] for one in _loaded_together(found, "a1111")]) is bool(missing)
    # diffusers looks for the rank of an attention at its last layer, and is doubted without it
    doubted = [one.loaders[0] for one in found.readings if not one.coverage.complete]
    assert doubted == (["diffusers"] if missing == "out_proj" else [])


def test_a_factor_of_several_layers_is_scaled_by_all_of_its_rank() -> None:
    base = shared_base("flux").components["transformer"]
    rows = [len(base.get_submodule(f"transformer_blocks.0.attn.to_{e}").weight) for e in "qkv"]  # type: ignore[arg-type]
    down, _ = pair("flux", "transformer", "transformer_blocks.0.attn.to_q", 6)
    up = torch.block_diag(*(torch.randn(count, 2) for count in rows))
    stem = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}
    found = read(tensors | {f"{stem}.alpha": torch.tensor(3.0)}, "flux")
    assert own_scales(found, "transformer_blocks.0.attn.to_q", "comfyui") == {0.5}


@pytest.mark.parametrize("family", ["sd", "sdxl", "flux"])
def test_no_conversion_changes_the_tensors_of_the_file(family: str) -> None:
    te = "encoder.layers.0.mlp.fc1"
    flux = ("transformer", "transformer_blocks.0.attn.to_out.0", "double_blocks_0_img_attn_proj")
    unet = flux if family == "flux" else ("unet", QUERY, QUERY.replace(".", "_"))
    text = ("text_encoder", te, f"text_model_{te.replace('.', '_')}")
    tensors: dict[str, Tensor] = {}
    start = "lora_te_" if family == "sd" else "lora_te1_"
    for stem, (component, layer, name) in (("lora_unet_", unet), (start, text)):
        down, up = pair(family, component, layer)
        tensors |= {f"{stem}{name}.lora_down.weight": down, f"{stem}{name}.lora_up.weight": up}
        tensors[f"{stem}{name}.alpha"] = torch.tensor(2 / 16)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    found = read(tensors, family)
    assert all(torch.equal(tensor, before[name]) for name, tensor in tensors.items())
    assert own_scales(found, te, "comfyui") == {1 / 16}


def test_automatic1111_refuses_a_file_of_which_it_would_load_nothing() -> None:
    layer = "text_model.encoder.layers.0.self_attn.q_proj"
    down, up = pair("sdxl", "text_encoder_2", layer)
    stem = f"lora_te2_{layer.replace('.', '_')}"
    found = read({f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}, "sdxl")
    assert {layer} in _loaded_together(found, "comfyui")
    assert set() not in _loaded_together(found, "a1111")
