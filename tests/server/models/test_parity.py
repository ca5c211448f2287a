"""Our deltas change the outputs exactly as diffusers' own loading does, for every format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.parity import compare, measure, read, refuse, table
from loragate_server.adapter.reference import Strength
from loragate_server.models import BaseModel
from loragate_server.models.apply import RowPlan, adapted_rows
from testkit.adapter_files import Case, save
from testkit.lanes import daily
from testkit.parity_cases import CASES, chosen_cases, every_case
from testkit.parity_refused import REFUSED
from testkit.tiny_models import tiny_base

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' and peft's own, on odd files


@pytest.mark.parametrize(("family", "name"), daily(*chosen_cases(), of=every_case()))
def test_what_is_audited_is_what_would_be_loaded(family: str, name: str, tmp_path: Path) -> None:
    parity = measure(family, name, tmp_path)
    assert parity.unmapped == 0
    assert parity.base_error == 0.0
    assert parity.holds, parity


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family, cases in REFUSED.items() for name in cases]
)
def test_what_cannot_be_told_is_refused_for_its_cause(
    family: str, name: str, tmp_path: Path
) -> None:
    refusal = refuse(family, name, tmp_path)
    assert not refusal.vouched
    assert refusal.holds, refusal


def test_the_table_has_every_layout_and_its_line_shows_a_failure(tmp_path: Path) -> None:
    equal = measure("sd", "full", tmp_path / "a")
    refused = refuse("sd", "OFT", tmp_path / "b")
    text = table([equal, replace(equal, error=1.0)], [refused, replace(refused, vouched=True)])
    assert text.count("| yes |") == text.count("| refused |") == 1
    assert text.count("| NO |") == 2
    assert len(list(every_case())) + sum(map(len, REFUSED.values())) >= 60


@pytest.mark.parametrize(("denoiser", "text_encoder"), [(1.001, 1.0), (1.0, 1.001)])
def test_another_strength_is_not_taken_for_equal(
    denoiser: float, text_encoder: float, tmp_path: Path
) -> None:
    case = CASES["sd"]["kohya"](tmp_path)
    given = case.strength
    other = Strength(given.denoiser * denoiser, given.text_encoder * text_encoder)
    assert not compare("sd", "kohya", replace(case, strength=other)).holds


def test_another_file_is_not_taken_for_equal(tmp_path: Path) -> None:
    case = CASES["sd"]["kohya"](tmp_path / "a")
    tensors = load_file(case.file)
    name = next(name for name in tensors if name.endswith("ff_net_2.alpha"))
    tensors[name] = tensors[name] * 2
    changed = replace(case, file=save(tmp_path / "b", tensors))
    assert not compare("sd", "kohya", changed).holds


def rows_of(family: str, tmp_path: Path, *strengths: tuple[slice, Strength]) -> torch.Tensor:
    """Output of six equal rows, with the family's adapter on some of them."""
    case = CASES[family]["diffusers"](tmp_path)
    base = tiny_base(family)
    adapter = read(case, base)
    return run_six(base, [RowPlan(rows, adapter.deltas, strength) for rows, strength in strengths])


def run_six(base: BaseModel, plans: list[RowPlan]) -> torch.Tensor:
    """Output of six equal rows."""
    with torch.inference_mode():
        told = base.encode_prompts(["a picture"] * 6)
        shape = base.encode_pictures(torch.zeros(1, 3, *base.picture_size)).shape
        noisy = torch.randn(shape, generator=torch.Generator().manual_seed(1)).repeat(6, 1, 1, 1)
        with adapted_rows(base, plans):
            return base.denoise(noisy, torch.full((6,), 0.3), told)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Several threads may sum equal rows of a small batch in different orders."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("family", list(CASES))
def test_an_adapter_of_strength_zero_changes_no_bit(family: str, tmp_path: Path) -> None:
    out = rows_of(family, tmp_path, (slice(3, 6), Strength(0.0, 0.0)))
    assert torch.equal(out[:3], out[3:])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("family", "name", "zeroed"),
    [
        ("sd", "kohya LoCon", ".lora_up.weight"),
        ("sd", "LoHa", ".hada_w1_b"),
        ("sd", "LoHa, Tucker", ".hada_w2_a"),
        ("sd", "LoKr", ".lokr_w1"),
        ("sdxl", "kohya, SGM names", ".lora_down.weight"),
        ("sd3", "diffusers, no metadata", ".lora_B.weight"),
        ("flux", "XLabs", ".up.weight"),
    ],
)
def test_an_adapter_of_zeros_changes_no_bit(
    family: str, name: str, zeroed: str, tmp_path: Path
) -> None:
    tensors = load_file(CASES[family][name](tmp_path / "a").file)
    assert any(key.endswith(zeroed) for key in tensors)
    zeros = {k: 0 * t if k.endswith(zeroed) else t for k, t in tensors.items()}
    base = tiny_base(family)
    adapter = read(Case(save(tmp_path / "b", zeros), None, None, Strength()), base)
    assert adapter.coverage.complete
    out = run_six(base, [RowPlan(slice(3, 6), adapter.deltas, Strength())])
    assert torch.equal(out[:3], out[3:])


@pytest.mark.parametrize("family", list(CASES))
def test_only_the_rows_of_the_plan_are_adapted(family: str, tmp_path: Path) -> None:
    bare = rows_of(family, tmp_path)
    out = rows_of(family, tmp_path, (slice(2, 4), Strength(1.0, 1.0)))
    assert torch.equal(out[:2], bare[:2])
    assert torch.equal(out[4:], bare[4:])
    assert (out[2:4] - bare[2:4]).abs().max() > 1e-3


def test_adapters_on_the_same_row_add_up(tmp_path: Path) -> None:
    half = Strength(0.5, 0.5)
    twice = rows_of("sd", tmp_path, (slice(0, 2), half), (slice(0, 2), half))
    once = rows_of("sd", tmp_path, (slice(0, 2), Strength(1.0, 1.0)))
    torch.testing.assert_close(twice, once)


def test_nothing_stays_on_the_model_when_a_pass_fails(tmp_path: Path) -> None:
    case = CASES["sd"]["diffusers"](tmp_path)
    base = tiny_base("sd")
    adapter = read(case, base)
    plan = RowPlan(slice(0, 2), adapter.deltas, Strength())
    with pytest.raises(RuntimeError, match="on purpose"), adapted_rows(base, [plan]):
        raise RuntimeError("on purpose")
    assert not any(module._forward_hooks for module in base.denoiser.modules())
    for rows in (slice(0, 4, 2), slice(-2, None), slice(None, 2)):
        with (
            pytest.raises(ValueError, match="rows"),
            adapted_rows(base, [replace(plan, rows=rows)]),
        ):
            pass
