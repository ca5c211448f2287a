"""Adapters whose layers do not look trained are told from those that do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.audit.entrance import widest_entrance
from loragate_server.audit.likeness import UNLIKE, Likeness, Profile, profile_of
from loragate_server.audit.screen import standardised
from loragate_server.audit.screening import Screening

COUNT = 24
LAYERS = tuple(ModuleRef("unet", f"blocks.{index}.to_v") for index in range(COUNT))
TYPICAL = {f"unet:blocks.{index}.to_v": 1.0 for index in range(COUNT)}
BANK = slice(4, None)


def trained(seed: int) -> Tensor:
    """Gains as training leaves them: every layer says something of its own, and all something."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return (0.3 * draw(COUNT, 1, 1)).exp() * (draw(1, 40, 3) + draw(COUNT, 40, 3))


def profile(gain: Tensor, layers: tuple[ModuleRef, ...] = LAYERS) -> Profile:
    return profile_of(layers, gain, standardised(gain, BANK), BANK, TYPICAL)


@pytest.fixture(scope="module")
def likeness() -> Likeness:
    return Likeness.of([profile(trained(seed)) for seed in range(200)])


def test_few_new_harmless_adapters_are_unlike_the_others() -> None:
    profiles = [profile(trained(10_000 + seed)) for seed in range(1200)]
    unlike = 0
    for start in range(0, 1200, 200):
        known, new = profiles[start : start + 100], profiles[start + 100 : start + 200]
        made = Likeness.of(known)
        unlike += sum(made.p_value(one) <= UNLIKE for one in new)
    assert unlike / 600 == pytest.approx(UNLIKE, abs=0.03)


@pytest.mark.parametrize("factor", [-1e-6, -1e-3, -0.1, 1e-3, 0.0])
def test_shrunk_layers_are_noticed(likeness: Likeness, factor: float) -> None:
    for seed in range(20):
        gain = trained(2000 + seed)
        gain[seed % 3 :: 3] *= factor
        assert likeness.p_value(profile(gain)) <= UNLIKE


def test_layers_turned_against_the_rest_are_noticed_at_full_strength(likeness: Likeness) -> None:
    noticed = 0
    for seed in range(20):
        gain = trained(3000 + seed)
        gain[seed % 3 :: 3] *= -1
        noticed += likeness.p_value(profile(gain)) <= UNLIKE
    assert noticed >= 18


def test_a_loud_layer_and_layers_elsewhere_are_noticed(likeness: Likeness) -> None:
    loud = trained(1)
    loud[5] *= 30
    assert likeness.p_value(profile(loud)) <= UNLIKE
    elsewhere = (*LAYERS[:-1], ModuleRef("unet", "conv_in"))
    assert likeness.p_value(profile(trained(2), elsewhere)) <= UNLIKE


def test_strength_and_layers_of_nothing_change_no_profile() -> None:
    gain = trained(7)
    torch.testing.assert_close(profile(3e-4 * gain), profile(gain), rtol=1e-6, atol=1e-9)
    more = (*LAYERS, ModuleRef("unet", "conv_in"), ModuleRef("unet", "conv_out"))
    padded = torch.cat([gain, torch.zeros(1, 40, 3), 1e-9 * trained(8)[:1]])
    torch.testing.assert_close(profile(padded, more), profile(gain), rtol=1e-6, atol=1e-6)


def test_an_adapter_without_layers_or_effect_has_a_profile() -> None:
    nothing = trained(1)[:0]
    assert profile_of((), nothing, nothing, BANK, TYPICAL) == (0.0,) * 5
    assert profile(torch.zeros(COUNT, 40, 3).double()) == (0.0,) * 5


def screening(scores: list[float], aims: list[float], unusual: float = 0.0) -> Screening:
    named, bank = [(0.0, 0.0)] * len(scores), [(0.0, 0.0)] * 8
    return Screening(scores, aims, (unusual, 0.0, 0.0, 0.0, 0.0), named, bank, range(len(scores)))


def test_nothing_unusual_ends_at_the_screen() -> None:
    harmless = [
        screening([i / 10, 0.0, 0.0, 0.0], [0.0, i / 100, 0.0, 0.0], i / 100) for i in range(40)
    ]
    entrance, _ = widest_entrance(harmless)
    still = [(value, value) for value in (-3.0, -1.0, -2.0, -4.0)]
    assert entrance.suspects(screening([0.1] * 4, [0.0] * 4), still) == []
    assert entrance.suspects(screening([9.0, 0, 0, 0], [0.0] * 4), still) == [0]
    assert entrance.suspects(screening([0.1] * 4, [0, 0, 0, 9.0]), still) == [3]
    for loud in ((5.0, -1.0), (-1.0, 5.0)):
        stood = [(-1.0, -1.0)] * 3 + [loud]
        assert entrance.suspects(screening([0.1] * 4, [0.0] * 4), stood) == [3]
    unlike = screening([0.1, 0.2, 0.3, 0.0], [0.04, 0.03, 0.02, 0.0], unusual=5.0)
    assert entrance.suspects(unlike, still) == [0, 1, 2]
    assert entrance.suspects(screening([float("nan")] * 4, [0.0] * 4), still) == [0, 1, 2, 3]
