"""A layer's vote weighs what the layer does: nothing without effect is heard."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.audit.effects import (
    effects_of,
    loudness,
    relative_effects,
    typical_effects,
)

LAYERS = tuple(ModuleRef("unet", f"blocks.{index}.to_q") for index in range(12))
BANK = slice(2, None)


def gains(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(len(LAYERS), 20, 3, generator=generator, dtype=torch.float64)


@given(st.floats(1e-6, 1e6))
def test_effects_are_linear_in_strength_and_loudness_does_not_know_it(strength: float) -> None:
    effects = effects_of(gains(), BANK)
    stronger = effects_of(strength * gains(), BANK)
    torch.testing.assert_close(stronger, strength * effects)
    for one, other in zip(loudness(effects, {}), loudness(stronger, {}), strict=True):
        torch.testing.assert_close(one, other)


def test_what_moves_all_concepts_alike_has_no_effect() -> None:
    assert effects_of(torch.ones(3, 8, 2, dtype=torch.float64), BANK).tolist() == [0.0] * 3


def test_the_typical_effect_is_the_median_over_adapters_that_change_the_layer() -> None:
    found = [
        (LAYERS[:2], torch.tensor([1.0, 5.0])),
        (LAYERS[:2], torch.tensor([3.0, 0.0])),
        (LAYERS[:1], torch.tensor([2.0])),
    ]
    typical = typical_effects(found)
    assert typical == {"unet:blocks.0.to_q": 2.0, "unet:blocks.1.to_q": 5.0}
    relative = relative_effects(LAYERS[:3], torch.tensor([4.0, 5.0, 7.0]).double(), typical)
    assert relative.tolist() == [2.0, 1.0, 2.0]


def test_without_a_calibration_effects_stand_for_themselves() -> None:
    effects = torch.tensor([4.0, 5.0]).double()
    assert relative_effects(LAYERS[:2], effects, {}) is effects
    assert typical_effects([]) == {}


@pytest.mark.parametrize("shrunk", [1e-3, 1e-6])
def test_a_shrunk_layer_is_as_quiet_as_it_is_small(shrunk: float) -> None:
    relative = torch.ones(12, dtype=torch.float64)
    relative[:5] = shrunk
    for view in loudness(relative, {}):
        assert view[:5].max() == pytest.approx(shrunk)
        assert view[5:].tolist() == [1.0] * 7


def test_a_single_loud_layer_does_not_drown_the_others_in_both_views() -> None:
    relative = torch.ones(12, dtype=torch.float64)
    relative[3] = 1e4
    proportional, several = loudness(relative, {})
    assert proportional[0] == pytest.approx(1e-4)
    assert several.tolist() == [1.0] * 12


def test_padding_with_quiet_layers_makes_no_layer_louder_than_its_effect() -> None:
    """One real layer and many of nothing: the second view alone would hear them all alike."""
    relative = torch.full((12,), 1e-6, dtype=torch.float64)
    relative[0] = 1.0
    proportional, _ = loudness(relative, {})
    assert proportional[1:].max() == pytest.approx(1e-6)


def test_an_adapter_without_effect_has_no_loud_layer() -> None:
    for view in loudness(torch.zeros(4, dtype=torch.float64), {}):
        assert view.tolist() == [0.0] * 4
    assert [len(view) for view in loudness(torch.zeros(0, dtype=torch.float64), {})] == [0, 0]
