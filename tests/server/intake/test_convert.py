"""Every tensor of a file ends up in a delta, or is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.parity import stored
from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import StoredFile
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.convert import Converted, Reading, convert
from loragate_server.intake.reader import DECLARED_ENTRIES, DECLARED_LETTERS, read_adapter
from testkit.parity_cases import CASES
from testkit.tiny_models import shared_base

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own, on files that are odd


def tensors_of(family: str, name: str, folder: Path) -> dict[str, Tensor]:
    case = CASES[family][name](folder)
    return load_file(case.file)


def converted(family: str, tensors: dict[str, Tensor], **options: Any) -> Reading:
    """What the loader that knows the file best makes of it."""
    loader = "peft" if "config" in options else "diffusers"
    found = every_reading(family, tensors, loaders=(loader, "a1111"), **options)
    return found.readings[0]


def every_reading(family: str, tensors: dict[str, Tensor], **options: Any) -> Converted:
    return convert(tensors, shared_base(family), **options)


def test_an_unknown_tensor_is_named_and_the_rest_is_read(tmp_path: Path) -> None:
    tensors = tensors_of("sd", "kohya", tmp_path)
    whole = converted("sd", tensors).coverage
    found = converted("sd", tensors | {"lora_unet_mystery.lora_up.weight": torch.ones(4, 4)})
    assert found.coverage.unmapped == ("lora_unet_mystery.lora_up.weight",)
    assert found.coverage.weight_tensors == whole.weight_tensors + 1
    assert found.coverage.mapped_tensors == whole.mapped_tensors
    assert not found.coverage.complete


@pytest.mark.parametrize(
    ("own", "name", "other"),
    [
        ("sdxl", "kohya", "sd"),
        ("sdxl", "kohya, SGM names", "sd"),
        ("flux", "kohya", "sd"),
        ("flux", "diffusers", "sd3"),
        ("sd3", "diffusers", "flux"),
        ("sd", "kohya", "flux"),
        ("sd", "diffusers", "sdxl"),
        ("sdxl", "LoHa, SGM names", "sd"),
        ("sdxl", "LoKr, SGM names", "sd"),
    ],
)
def test_an_adapter_of_another_base_model_is_never_complete(
    own: str, name: str, other: str, tmp_path: Path
) -> None:
    tensors = tensors_of(own, name, tmp_path)
    coverage = converted(other, tensors).coverage
    assert not coverage.complete
    assert coverage.unmapped
    assert coverage.mapped_tensors + len(coverage.unmapped) == coverage.weight_tensors


def test_a_file_of_something_else_matches_nothing() -> None:
    coverage = converted("sd", {"model.embed.weight": torch.ones(3, 3)}).coverage
    assert (coverage.matched_modules, coverage.mapped_tensors) == (0, 0)
    assert coverage.unmapped == ("model.embed.weight",)


def test_half_a_pair_changes_nothing_and_is_named(tmp_path: Path) -> None:
    tensors = tensors_of("sd", "diffusers, no metadata", tmp_path)
    whole = converted("sd", tensors)
    gone = sorted(name for name in tensors if name.endswith("lora_B.weight"))[0]
    found = converted("sd", {name: t for name, t in tensors.items() if name != gone})
    assert gone.replace("lora_B", "lora_A") in found.coverage.unmapped
    assert found.coverage.matched_modules < whole.coverage.matched_modules


def test_a_shape_that_does_not_fit_is_named(tmp_path: Path) -> None:
    tensors = tensors_of("sd", "diffusers, no metadata", tmp_path)
    odd = sorted(name for name in tensors if name.endswith("lora_A.weight"))[0]
    tensors[odd] = torch.ones(tensors[odd].shape[0], tensors[odd].shape[1] + 1)
    assert odd in converted("sd", tensors).coverage.unmapped


def test_two_names_for_one_layer_are_not_both_taken_for_applied(tmp_path: Path) -> None:
    plain = tensors_of("sd", "diffusers, no metadata", tmp_path / "a")
    kohya = tensors_of("sd", "kohya", tmp_path / "b")
    coverage = converted("sd", plain | kohya).coverage
    assert not coverage.complete


@pytest.mark.parametrize(
    "config",
    [
        {"peft_type": "LORA", "r": 0},
        {"peft_type": "LORA", "r": "eight"},
        {"peft_type": "LORA", "r": 4, "lora_alpha": [1]},
        {"peft_type": "LORA", "r": 4, "rank_pattern": {"to_q": -1}},
        {"peft_type": "LORA", "r": 4, "rank_pattern": [1]},
    ],
)
def test_a_rank_or_alpha_of_no_use_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    tensors = tensors_of("sd", "peft folder", tmp_path)
    with pytest.raises(NoDecisionError) as caught:
        converted("sd", tensors, config=config)
    assert caught.value.reason is ErrorReason.ADAPTER_METADATA_INVALID


@pytest.mark.parametrize(
    "change",
    [
        {"peft_type": "VERA"},
        {"megatron_config": {"a": 1}},
        {"rank_pattern": {".*to_q": 2}},
        {"init_lora_weights": "pissa"},
        {"trainable_token_indices": [1]},
    ],
)
def test_a_configuration_that_is_not_understood_leaves_nothing_mapped(
    change: dict[str, Any], tmp_path: Path
) -> None:
    case = CASES["sd"]["peft folder"](tmp_path)
    assert case.config_json is not None
    config = json.loads(case.config_json)
    tensors = load_file(case.file)
    assert converted("sd", tensors, config=config).coverage.complete
    assert not converted("sd", tensors, config=config | change).coverage.complete


def read_file(tensors: dict[str, Tensor], header: dict[str, str], folder: Path) -> Adapter:
    path = folder / "adapter.safetensors"
    save_file(tensors, path, header)
    kept = StoredFile("a" * 64, path.stat().st_size, path)
    return read_adapter(kept, shared_base("sd")).adapters[0]


def test_what_the_header_declares_is_kept_and_bounded(tmp_path: Path) -> None:
    header = {f"key{index:03}": "x" * 5000 for index in range(200)}
    adapter = read_file({"a.weight": torch.ones(2)}, header, tmp_path)
    assert len(adapter.declared) == DECLARED_ENTRIES
    assert {len(value) for value in adapter.declared.values()} == {DECLARED_LETTERS}


def test_a_stored_file_that_has_gone_is_an_error(tmp_path: Path) -> None:
    gone = StoredFile("a" * 64, 10, tmp_path / "gone.safetensors")
    with pytest.raises(NoDecisionError) as caught:
        read_adapter(gone, shared_base("sd"))
    assert caught.value.reason is ErrorReason.SOURCE_UNREADABLE


def test_reading_the_same_file_twice_gives_the_same_deltas(tmp_path: Path) -> None:
    case = CASES["sd"]["kohya"](tmp_path)
    first, second = (read_adapter(stored(case), shared_base("sd")).adapters[0] for _ in range(2))
    assert list(first.deltas) == list(second.deltas)
    assert first.coverage == second.coverage
