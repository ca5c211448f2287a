"""Turning down what is loud: a forbidden adapter is heard beside a louder one in the same file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from loragate_server.adapter.adapter import Adapter, KeyCoverage, ModuleRef
from loragate_server.adapter.algebra import LowRank, Whole
from loragate_server.adapter.delta import LayerShape
from loragate_server.adapter.reference import Strength
from loragate_server.audit.quieter import MOST_NUMBERS, SHARES, held_at_once, quieter
from loragate_server.audit.uses import Member
from loragate_server.gate.bases import ServedBase
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel
from loragate_server.policy.decision import Decision, VerdictKind
from testkit.derived_adapters import merged
from testkit.lanes import daily

ADAPTERS = Path(__file__).parents[3] / "examples" / "adapters"
LEARNED = ("bomb", "father-christmas", "jack-o-lantern", "robot-face")
BLOCK, ALLOW = VerdictKind.BLOCK, VerdictKind.ALLOW


def whole(adapter: Adapter, base: BaseModel) -> Adapter:
    """The same weights, kept weight by weight."""
    deltas = {
        ref: Whole(delta.dense(shape_of(base, ref), 1.0), 1.0)
        for ref, delta in adapter.deltas.items()
    }
    return replace(adapter, deltas=deltas)


def shape_of(base: BaseModel, ref: ModuleRef) -> LayerShape:
    return layer_shape(base.components[ref.component].get_submodule(ref.module))


@pytest.mark.parametrize("times", [4.0, 16.0])
@pytest.mark.parametrize("name", daily("father-christmas", "jack-o-lantern", of=LEARNED))
def test_a_louder_adapter_in_the_same_file_hides_no_learned_one(
    name: str,
    times: float,
    example: Callable[[str], Adapter],
    decided: Callable[..., Decision],
) -> None:
    file = merged(example(f"learned-{name}"), example("harmless-watermelon"), times)
    found = decided(Member.of(file))
    assert found.verdict is BLOCK
    assert found.findings[0].evidence.concept_id == name


def test_nor_does_it_where_the_file_holds_plain_weights(
    example: Callable[[str], Adapter], decided: Callable[..., Decision], embedded: ServedBase
) -> None:
    file = merged(example("learned-father-christmas"), example("harmless-watermelon"), 8)
    assert decided(Member.of(whole(file, embedded.base))).verdict is BLOCK


def test_nor_does_it_at_a_negative_strength_or_from_a_file_of_its_own(
    example: Callable[[str], Adapter], decided: Callable[..., Decision]
) -> None:
    file = merged(example("learned-jack-o-lantern"), example("harmless-sepia"), -16)
    assert decided(Member.of(file)).verdict is BLOCK


def test_two_harmless_adapters_in_one_file_stay_harmless(
    example: Callable[[str], Adapter], decided: Callable[..., Decision]
) -> None:
    file = merged(example("harmless-sailboat"), example("harmless-watermelon"), 4)
    assert decided(Member.of(file)).verdict is ALLOW


@given(
    seed=st.integers(0, 2**31), rank=st.integers(1, 24), strength=st.sampled_from([1e-6, 1.0, 1e6])
)
@settings(max_examples=15, deadline=None)
def test_whatever_the_factors_and_the_strength_the_same_change_is_turned_down_alike(
    seed: int, rank: int, strength: float, embedded: ServedBase
) -> None:
    base, ref = embedded.base, a_layer(embedded.base)
    made = torch.Generator().manual_seed(seed)
    d_out, d_in = shape_of(base, ref).weight.flatten(1).shape
    down = torch.randn(rank, d_in, generator=made)
    up = torch.randn(d_out, rank, generator=made) * torch.logspace(0, -3, rank)
    noise_down, noise_up = (
        100 * torch.randn(2, d_in, generator=made),
        torch.randn(d_out, 2, generator=made),
    )
    turn = torch.linalg.qr(torch.randn(rank, rank, generator=made)).Q
    ways: dict[str, LowRank | Whole] = {
        "plain": LowRank(down, up, 1.0),
        "turned": LowRank(turn @ down, up @ turn.T, 1.0),
        "scaled": LowRank(down * 64, up / 16, 0.25),
        "cancelling": LowRank(
            torch.cat([down, noise_down, noise_down]), torch.cat([up, noise_up, -noise_up], 1), 1.0
        ),
        "whole": Whole((up @ down).reshape(shape_of(base, ref).weight.shape), 1.0),
    }
    expected = [formula((up @ down).double(), share) for share in SHARES]
    for delta in ways.values():
        found = changes(base, ref, delta, strength)
        for one, want in zip(found, expected, strict=True):
            assert (one / strength - want).norm() <= 2e-3 * want.norm()


def formula(change: Tensor, share: float) -> Tensor:
    """By singular values, float64."""
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    loud = share**2 * values.pow(4).sum() / values.square().sum()
    turned: Tensor = (left * (values / (1 + values.square() / loud))) @ right
    return turned


def changes(
    base: BaseModel, ref: ModuleRef, delta: LowRank | Whole, strength: float
) -> list[Tensor]:
    adapter = replace(an_adapter(), deltas={ref: delta})
    return [
        one.deltas[ref].dense(shape_of(base, ref), 1.0).flatten(1).double()
        for one in quieter(base, [(adapter, Strength(strength, strength))])
    ]


def an_adapter() -> Adapter:
    return Adapter("f" * 64, 1, "test", {}, KeyCoverage(2, 2, (), 1), {})


def a_layer(base: BaseModel) -> ModuleRef:
    """One of cross-attention."""
    return next(
        ModuleRef(*key) for key in base.adaptable_modules() if key[1].endswith("attn2.to_k")
    )


def test_of_large_adapters_a_few_are_turned_down_at_one_time_and_every_one_in_its_turn() -> None:
    ref = ModuleRef("unet", "layer")
    wide = LowRank(torch.empty(1, MOST_NUMBERS // 2, device="meta"), torch.empty(8, 1), 1.0)
    half = [(replace(an_adapter(), deltas={ref: wide}), Strength())]
    small = [(replace(an_adapter(), deltas={ref: replace(wide, down=wide.up)}), Strength())]
    assert [*held_at_once([])] == []
    assert [*held_at_once([half])] == [slice(0, 1)]
    assert [*held_at_once([half, small, half, half, small])] == [
        slice(0, 2), slice(2, 3), slice(3, 5)
    ]  # fmt: skip


def test_of_an_adapter_that_changes_nothing_nothing_is_left(embedded: ServedBase) -> None:
    base, ref = embedded.base, a_layer(embedded.base)
    d_out, d_in = shape_of(base, ref).weight.shape
    nothing = LowRank(torch.ones(4, d_in), torch.zeros(d_out, 4), 1.0)
    adapter = replace(an_adapter(), deltas={ref: nothing})
    assert quieter(base, [(adapter, Strength())]) == []
    loud = replace(nothing, up=torch.ones(d_out, 4))
    adapter = replace(an_adapter(), deltas={ref: loud})
    assert quieter(base, [(adapter, Strength(0.0, 0.0))]) == []
