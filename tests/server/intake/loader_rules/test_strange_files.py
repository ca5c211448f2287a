"""Files that a stranger made so that a loader would see something else than was audited."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from benchmarks.loader_parity.compare import compare
from benchmarks.loader_parity.files import AdapterFile
from loragate_server.adapter.adapter import Readings
from loragate_server.adapter.reference import StoredFile
from loragate_server.intake.loader_rules.meaning import UnknownEffectError
from loragate_server.intake.loader_rules.patterns import FirstMatch
from loragate_server.intake.reader import read_adapter
from testkit.tiny_models import shared_base

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, on files that are odd

QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k"
OUT = "mid_block.attentions.0.proj_out"
FLUX_QUERY, FLUX_KEY = "transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k"
FLUX_OUT = "transformer_blocks.0.attn.to_out.0"
PEFT = "base_model.model."
AB = (".lora_A.weight", ".lora_B.weight")


def shape_of(family: str, layer: str) -> torch.Size:
    weight = shared_base(family).denoiser.get_submodule(layer).weight
    assert isinstance(weight, Tensor)
    return weight.shape


def plain(
    family: str, stems: Mapping[str, str], ends: tuple[str, str] = AB, rank: int = 2
) -> dict[str, Tensor]:
    """A pair per layer, under the name that stands before it."""
    found: dict[str, Tensor] = {}
    for seed, (stem, layer) in enumerate(stems.items()):
        generator = torch.Generator().manual_seed(seed)
        shape = shape_of(family, layer)
        ones = (1,) * (len(shape) - 2)
        found[stem + ends[0]] = torch.randn(rank, *shape[1:], generator=generator)
        found[stem + ends[1]] = torch.randn(shape[0], rank, *ones, generator=generator)
    return found


def read(
    folder: Path,
    family: str,
    tensors: Mapping[str, Tensor],
    header: dict[str, str] | None = None,
    config: Mapping[str, Any] | str | None = None,
) -> Readings:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(in_order(tensors, header or {}))
    text = config if config is None or isinstance(config, str) else json.dumps(config)
    return read_adapter(StoredFile("0" * 64, path.stat().st_size, path, text), shared_base(family))


def in_order(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A file whose bytes are in the order of `tensors`, which `save` would sort."""
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    data, begin = b"", 0
    for name, tensor in tensors.items():
        single = save({name: tensor.contiguous()})
        length = int.from_bytes(single[:8], "little")
        entry = json.loads(single[8 : 8 + length])[name]
        body = single[8 + length :]
        entries[name] = entry | {"data_offsets": [begin, begin + len(body)]}
        data, begin = data + body, begin + len(body)
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + data


def vouched(found: Readings) -> bool:
    return not found.doubts and all(one.coverage.complete for one in found.adapters)


def layers_by(found: Readings, loader: str) -> list[set[str]]:
    return [{ref.module for ref in one.deltas} for one in found.adapters if loader in one.loaders]


@pytest.mark.parametrize("kind", ["LOHA", "LOKR", "IA3", "lora"])
def test_a_header_is_one_of_lora_for_diffusers_whatever_kind_it_names(kind: str) -> None:
    declared = {
        "unet.peft_type": kind,
        "unet.r": 2,
        "unet.lora_alpha": -2,
        "unet.target_modules": [QUERY],
    }
    made = AdapterFile(
        plain("sd", {f"unet.{QUERY}": QUERY}), {"lora_adapter_metadata": json.dumps(declared)}
    )
    assert compare("sd", "diffusers", made) == "equal"


@pytest.mark.parametrize("kind", ["LOHA", "LOKR"])
def test_a_folder_of_another_kind_loads_no_plain_factors(kind: str, tmp_path: Path) -> None:
    config = {"peft_type": kind, "r": 2, "lora_alpha": 2, "target_modules": ["to_q"]}
    found = read(tmp_path, "sd", plain("sd", {PEFT + QUERY: QUERY}), config=config)
    assert "peft" in found.refused


@pytest.mark.parametrize("spelled", ["all-linear", "All-Linear", "ALL-LINEAR"])
def test_all_linear_layers_are_meant_in_any_case(spelled: str, tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": spelled}
    found = read(tmp_path, "sd", plain("sd", {PEFT + QUERY: QUERY}), config=config)
    assert "all-linear" in found.doubts[0][1]


def test_an_alpha_that_comes_first_hides_layers_of_another_spelling(tmp_path: Path) -> None:
    tensors = {f"unet.{KEY}.lora_A.alpha": torch.tensor(2.0)}
    tensors |= plain("sd", {f"unet.{QUERY}": QUERY}, (".lora.down.weight", ".lora.up.weight"))
    tensors |= plain("sd", {f"unet.{KEY}": KEY})
    found = read(tmp_path, "sd", tensors)
    assert layers_by(found, "diffusers") == [{KEY}]
    assert not vouched(found)


def loha(family: str, layer: str, stem: str) -> dict[str, Tensor]:
    rows, columns = shape_of(family, layer)
    return {
        f"{stem}.hada_{half}_{part}": torch.randn(rows, 2)
        if part == "a"
        else torch.randn(2, columns)
        for half in ("w1", "w2")
        for part in ("a", "b")
    }


def test_factors_that_flux_loaders_leave_out_are_not_a_refusal(tmp_path: Path) -> None:
    tensors = plain("flux", {f"transformer.{FLUX_QUERY}": FLUX_QUERY})
    tensors |= loha("flux", FLUX_KEY, f"transformer.{FLUX_KEY}")
    found = read(tmp_path, "flux", tensors)
    assert {"diffusers", "sglang"}.isdisjoint(found.refused)
    assert not vouched(found)


def test_factors_beside_other_names_are_not_a_refusal_by_diffusers(tmp_path: Path) -> None:
    tensors = plain("sd", {f"unet.{QUERY}": QUERY})
    tensors |= loha("sd", KEY, "lora_unet_" + KEY.replace(".", "_"))
    found = read(tmp_path, "sd", tensors)
    assert "diffusers" not in found.refused
    assert not vouched(found)


@pytest.mark.parametrize(("down", "up", "core"), [(3, 2, (2, 3)), (1, 1, (4, 4)), (4, 1, (4, 4))])
def test_a_core_with_several_ranks_is_not_read(
    down: int, up: int, core: tuple[int, int], tmp_path: Path
) -> None:
    """Some loaders stretch a factor of rank 1 to the core's, others end there."""
    layer = "up_blocks.0.resnets.0.conv1"
    out, into = shape_of("sd", layer)[:2]
    stem = "lora_unet_" + layer.replace(".", "_")
    factors = {
        "lora_down.weight": torch.randn(down, into, 1, 1),
        "lora_mid.weight": torch.randn(*core, 3, 3),
        "lora_up.weight": torch.randn(out, up, 1, 1),
    }
    found = read(tmp_path, "sd", {f"{stem}.{end}": tensor for end, tensor in factors.items()})
    assert not vouched(found)


@pytest.mark.parametrize("alpha", ["inf", "-inf", "nan", "1e999", "1_6", "1" + "0" * 400])
def test_a_number_of_the_header_that_is_none_is_refused(alpha: str, tmp_path: Path) -> None:
    tensors = plain("flux", {f"transformer.{FLUX_QUERY}": FLUX_QUERY})
    found = read(tmp_path, "flux", tensors, {"lora_alpha": alpha})
    assert "sglang" in found.refused or alpha == "1_6"


def test_fused_layers_keep_the_fraction_of_an_alpha_that_others_lose(tmp_path: Path) -> None:
    layers = (FLUX_QUERY, FLUX_OUT)
    tensors = plain("flux", {f"transformer.{layer}": layer for layer in layers})
    for layer in layers:
        tensors[f"transformer.{layer}.alpha"] = torch.tensor(1.5)
    found = read(tmp_path, "flux", tensors)
    scales = [
        tuple(delta.scale for ref, delta in one.deltas.items())  # type: ignore[attr-defined]
        for one in found.adapters
        if "sglang" in one.loaders
    ]
    assert sorted(scales) == [(0.5, 0.5), (0.75, 0.5)]


@pytest.mark.parametrize(
    ("targets", "wanted"),
    [(["to_q"], {FLUX_QUERY}), ("to_k", {FLUX_KEY}), (["attn.to_q"], {FLUX_QUERY})],
)
def test_a_folder_is_also_what_its_targets_name_for_vllm_omni(
    targets: Any, wanted: set[str], tmp_path: Path
) -> None:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": targets}
    tensors = plain("flux", {PEFT + layer: layer for layer in (FLUX_QUERY, FLUX_KEY)})
    found = read(tmp_path, "flux", tensors, config=config)
    read_as = layers_by(found, "vllm-omni")
    assert wanted in read_as
    assert {FLUX_QUERY, FLUX_KEY} in read_as


def names() -> Iterator[str]:
    for index in range(1200):
        yield f"down_blocks.{index % 4}.attentions.0.transformer_blocks.{index}.attn1.to_q"


def test_as_many_patterns_as_a_large_model_has_layers_are_told_apart() -> None:
    layers = list(names())
    found = FirstMatch("rank_pattern", {name: index for index, name in enumerate(layers)}, -1)
    assert [found.of(name) for name in layers[:50]] == list(range(50))
    assert found.of("mid_block.attentions.0.proj_in") == -1


def test_too_many_patterns_are_not_guessed_at() -> None:
    with pytest.raises(UnknownEffectError, match="more patterns"):
        FirstMatch("alpha_pattern", {f"x{index}.*y": index for index in range(20_000)}, -1)
    large = {"x" * 500 + f".*{index}": index for index in range(2000)}
    with pytest.raises(UnknownEffectError, match="more patterns"):
        FirstMatch("alpha_pattern", large, -1).of("to_q")


DOWN_UP = (".lora_down.weight", ".lora_up.weight")
MIDDLE = "lora_unet_mid_block_attentions_0_"


@pytest.mark.parametrize(
    "stem", [MIDDLE + "lora_unet_proj_out", "lora_unet_" + MIDDLE + "proj_out"]
)
def test_a_name_that_only_diffusers_makes_a_layer_of_is_left_out_by_the_others(
    stem: str, tmp_path: Path
) -> None:
    tensors = plain("sd", {"lora_unet_" + QUERY.replace(".", "_"): QUERY, stem: OUT}, DOWN_UP)
    found = read(tmp_path, "sd", tensors)
    assert layers_by(found, "diffusers") == [{QUERY, OUT}]
    assert layers_by(found, "comfyui") == layers_by(found, "a1111") == [{QUERY}]
    assert vouched(found)


def test_factors_under_such_a_name_are_left_out_as_well(tmp_path: Path) -> None:
    tensors = loha("sd", QUERY, MIDDLE + "lora_unet_transformer_blocks_0_attn1_to_q")
    tensors |= loha("sd", KEY, "lora_unet_" + KEY.replace(".", "_"))
    assert layers_by(read(tmp_path, "sd", tensors), "comfyui") == [{KEY}]


def test_a_processor_that_is_none_hides_a_layer_from_comfyui(tmp_path: Path) -> None:
    stems = {f"unet.{OUT}.processor": OUT, f"unet.{KEY}".replace(".to_", ".processor.to_"): KEY}
    found = read(tmp_path, "sd", plain("sd", stems, (".lora.down.weight", ".lora.up.weight")))
    assert layers_by(found, "diffusers") == [{OUT, KEY}]
    assert layers_by(found, "comfyui") == [{KEY}]


@pytest.mark.parametrize("tail", ["proj_in", "lora_unet_proj_in"])
def test_names_of_the_original_blocks_are_known_as_they_are_alone(
    tail: str, tmp_path: Path
) -> None:
    block, start = "down_blocks.1.attentions.0", "lora_unet_input_blocks_4_1_"
    layers = [f"{block}.transformer_blocks.0.attn1.to_q", f"{block}.proj_in"]
    stems = {start + "transformer_blocks_0_attn1_to_q": layers[0], start + tail: layers[1]}
    found = read(tmp_path, "sdxl", plain("sdxl", stems, DOWN_UP))
    assert layers_by(found, "comfyui") == [set(layers if tail == "proj_in" else layers[:1])]


def test_names_of_several_ways_in_one_file_are_not_vouched_for(tmp_path: Path) -> None:
    tensors = plain(
        "flux", {f"transformer.{FLUX_KEY}": FLUX_KEY}, (".lora.down.weight", ".lora.up.weight")
    )
    tensors |= plain(
        "flux", {f"transformer.{FLUX_QUERY}": FLUX_QUERY}, ("_lora.down.weight", "_lora.up.weight")
    )
    assert vouched(read(tmp_path, "flux", tensors))
    mixed = plain("flux", {f"transformer.{FLUX_OUT}": FLUX_OUT}, DOWN_UP)
    found = read(tmp_path, "flux", mixed | tensors)
    assert not vouched(found)


@pytest.mark.parametrize("pattern", ["", [""], "mid_block|x", "(mid|x)_block", [], "attentions"])
def test_a_layers_pattern_that_is_odd_chooses_what_peft_chooses(pattern: Any) -> None:
    config = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["to_q"],
        "layers_to_transform": [0],
        "layers_pattern": pattern,
    }
    made = AdapterFile(plain("sd", {PEFT + QUERY: QUERY}), {}, config)
    assert compare("sd", "peft", made) in ("equal", "both refuse")


def test_components_that_cancel_in_full_precision_alone_are_not_vouched_for(tmp_path: Path) -> None:
    stem = f"unet.{OUT}".replace(OUT, QUERY)
    rows, columns = shape_of("sd", QUERY)
    change, loud = torch.randn(columns), 1e4 * torch.randn(columns).sign()
    # change + (loud - change) - loud is nothing, and `change` where loud - change is loud
    down = torch.stack([change, loud - change, loud])
    up = torch.randn(rows, 1) * torch.tensor([1.0, 1.0, -1.0])
    tensors = {f"{stem}.lora_A.weight": down, f"{stem}.lora_B.weight": up}
    found = read(tmp_path, "sd", tensors)
    assert "half precision" in found.doubts[0][1]
    assert not vouched(found)


@pytest.mark.parametrize("kind", ["lokr", "loha", "tucker"])
@pytest.mark.parametrize("cancels", [False, True])
def test_no_kind_of_factors_is_vouched_for_where_they_cancel_in_full_precision_alone(
    kind: str, cancels: bool, tmp_path: Path
) -> None:
    layer = "conv_in" if kind == "tucker" else QUERY
    shape = shape_of("sd", layer)
    rows, columns = shape[0], shape[1]
    change = torch.randn(columns)
    loud = (1e4 if cancels else 0.5) * torch.randn(columns).sign()
    down = torch.stack([change, loud - change, loud])
    up = torch.randn(rows, 1) * torch.tensor([1.0, 1.0, -1.0 if cancels else 1.0])
    ones = torch.ones
    factors = {
        "lokr": {"lokr_w1": ones(1, 1), "lokr_w2_a": up, "lokr_w2_b": down},
        "loha": {
            "hada_w1_a": ones(rows, 3) / 3,
            "hada_w1_b": ones(3, columns),
            "hada_w2_a": up,
            "hada_w2_b": down,
        },
        "tucker": {
            "lora_down.weight": down[:, :, None, None],
            "lora_up.weight": up[:, :, None, None],
            "lora_mid.weight": torch.eye(3)[:, :, None, None] * ones(3, 3, *shape[2:]),
        },
    }[kind]
    stem = "lora_unet_" + layer.replace(".", "_")
    found = read(tmp_path, "sd", {f"{stem}.{end}": each for end, each in factors.items()})
    assert any("half precision" in why for _, why in found.doubts) is cancels


@pytest.mark.parametrize(("size", "fine"), [(1e-3, True), (1.0, True), (1e-12, True), (1e6, False)])
def test_factors_of_an_ordinary_size_are_the_same_in_half_precision(
    size: float, fine: bool, tmp_path: Path
) -> None:
    tensors = plain("sd", {f"unet.{QUERY}": QUERY}, rank=16)
    found = read(tmp_path, "sd", {name: size * tensor for name, tensor in tensors.items()})
    assert vouched(found) is fine


def test_a_conversion_in_half_precision_that_loses_a_component_is_noticed(tmp_path: Path) -> None:
    stem = "lora_unet_double_blocks_0_img_attn_proj"
    tensors = plain("flux", {stem: FLUX_OUT}, DOWN_UP)
    down, up = tensors.values()
    down, up = down * torch.tensor([[1.0], [1e-6]]), up * torch.tensor([1e-3, 6e3])
    names = list(tensors)
    found = read(
        tmp_path,
        "flux",
        {names[0]: down.half(), names[1]: up.half(), f"{stem}.alpha": torch.tensor(2e-4)},
    )
    assert not vouched(found)


@pytest.mark.parametrize("name", ["x.alpha", "alpha", f"transformer.{FLUX_QUERY}.alpha"])
def test_one_alpha_below_0_is_every_layers_for_diffusers_on_flux(name: str, tmp_path: Path) -> None:
    stems = {f"transformer.{layer}": layer for layer in (FLUX_QUERY, FLUX_KEY)}
    tensors = plain("flux", stems) | {name: torch.tensor(-8.0)}
    assert compare("flux", "diffusers", AdapterFile(tensors, {})) == "equal"
    assert "diffusers" not in read(tmp_path, "flux", tensors).refused


@pytest.mark.parametrize(
    "stem",
    ["lora_unet_input_blocks_1_0_op", "lora_unet_output_blocks_0_2_conv"],
)
def test_an_original_name_with_another_blocks_number_is_no_layer_to_those_that_look_it_up(
    stem: str, tmp_path: Path
) -> None:
    layer = "down_blocks.0.downsamplers.0.conv" if "op" in stem else "up_blocks.0.upsamplers.0.conv"
    tensors = plain("sdxl", {"lora_unet_conv_in": "conv_in", stem: layer}, DOWN_UP)
    found = read(tmp_path, "sdxl", tensors)
    assert layers_by(found, "comfyui") == layers_by(found, "a1111") == [{"conv_in"}]


def test_a_layer_that_diffusers_loses_is_still_one_to_those_that_look_it_up(tmp_path: Path) -> None:
    layer = "add_embedding.linear_1"
    stems = {"lora_unet_conv_in": "conv_in", "lora_unet_add_embedding_linear_1": layer}
    found = read(tmp_path, "sdxl", plain("sdxl", stems, DOWN_UP))
    assert layers_by(found, "comfyui") == [{"conv_in", layer}]
    assert not vouched(found)


@pytest.mark.parametrize(
    ("family", "stem", "tail"),
    [
        ("sd", "lora_te_encoder_layers_0_", "mlp_fc1"),
        ("sd", "lora_te1_encoder_layers_0_", "self_attn_out_proj"),
        ("sd", "text_encoder.encoder.layers.0.", "mlp.fc2"),
        ("sdxl", "lora_te1_encoder_layers_0_", "mlp_fc2"),
    ],
)
def test_a_text_encoders_name_without_its_level_is_no_layer_to_comfyui(
    family: str, stem: str, tail: str, tmp_path: Path
) -> None:
    encoder = shared_base(family).components["text_encoder"]
    end = tail.replace("self_attn_", "self_attn.").replace("mlp_", "mlp.")
    own = next(module for name, module in encoder.named_modules() if name.endswith(f"0.{end}"))
    rows, columns = own.weight.shape  # type: ignore[union-attr,misc]
    tensors = plain(family, {"lora_unet_conv_in": "conv_in"}, DOWN_UP)
    tensors[f"{stem}{tail}.lora_down.weight"] = torch.randn(2, columns)  # type: ignore[arg-type]
    tensors[f"{stem}{tail}.lora_up.weight"] = torch.randn(rows, 2)  # type: ignore[arg-type]
    found = read(tmp_path, family, tensors)
    assert layers_by(found, "comfyui") == [{"conv_in"}]


def test_several_names_of_one_layer_are_not_chosen_among(tmp_path: Path) -> None:
    stem = "lora_unet_" + OUT.replace(".", "_")
    tensors = plain("sd", {stem: OUT}, DOWN_UP) | plain("sd", {f"unet.{OUT}": OUT})
    found = read(tmp_path, "sd", tensors)
    assert any("comfyui" in why and "several names" in why for _, why in found.doubts)


def test_factors_named_in_two_ways_are_not_put_together_by_those_that_look_them_up(
    tmp_path: Path,
) -> None:
    tensors = plain("sd", {f"unet.{OUT}": OUT}, (".lora_A.weight", ".lora_up.weight"))
    assert not vouched(read(tmp_path, "sd", tensors))
