"""What is kept of an adapter: small, and the same change within its rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from loragate_server.adapter.adapter import Adapter, KeyCoverage, ModuleRef
from loragate_server.adapter.algebra import Dora, Hadamard, LowRank
from loragate_server.adapter.delta import WeightDelta
from loragate_server.audit.factors import (
    Factors,
    NotKeptError,
    adapter_of,
    factors_to_keep,
)
from loragate_server.models import BaseModel
from loragate_server.models.apply import layer_shape


def layer_of(base: BaseModel, dimensions: int) -> tuple[ModuleRef, Tensor]:
    """A layer of the denoiser: 2 for linear, 4 for a convolution with a kernel."""
    for (component, name), module in base.adaptable_modules().items():
        weight = module.weight
        assert isinstance(weight, Tensor)
        wide = dimensions == 2 or weight.shape[-1] > 1
        if component == base.denoiser_component and weight.dim() == dimensions and wide:
            return ModuleRef(component, name), weight.detach()
    raise AssertionError("there is no such layer")


def alone(ref: ModuleRef, delta: WeightDelta) -> Adapter:
    return Adapter("a" * 64, 1, "test", {ref: delta}, KeyCoverage(2, 2, (), 1), {})


def dense(base: BaseModel, adapter: Adapter) -> Tensor:
    [(ref, delta)] = adapter.deltas.items()
    shape = layer_shape(base.components[ref.component].get_submodule(ref.module))
    return delta.dense(shape, 1.0)


def deltas(base: BaseModel) -> dict[str, tuple[ModuleRef, WeightDelta]]:
    """One change of each form, by name."""
    torch.manual_seed(3)
    linear, weight = layer_of(base, 2)
    out, width = weight.shape
    kernel, cube = layer_of(base, 4)
    lora = LowRank(torch.randn(4, width), torch.randn(out, 4) * 1e-3, 0.5)
    halves = [(torch.randn(out, 2), torch.randn(2, width)) for _ in range(2)]
    return {
        "lora": (linear, lora),
        "uneven": (linear, LowRank(lora.down * 1e6, lora.up * 1e-6, 3.0)),
        "convolution": (
            kernel,
            LowRank(torch.randn(3, *cube.shape[1:]), torch.randn(len(cube), 3, 1, 1), 1.0),
        ),
        "tucker": (
            kernel,
            LowRank(
                torch.randn(2, cube.shape[1], 1, 1),
                torch.randn(len(cube), 2, 1, 1),
                1.0,
                torch.randn(2, 2, *cube.shape[2:]),
            ),
        ),
        "loha": (linear, Hadamard(halves[0], halves[1], 0.1)),
        "dora": (linear, Dora(lora, weight.norm(dim=1) * 1.1)),
    }


@pytest.mark.parametrize("kind", ["lora", "uneven", "convolution", "tucker", "loha", "dora"])
def test_a_change_comes_back_within_its_rounding(base: BaseModel, kind: str) -> None:
    ref, delta = deltas(base)[kind]
    adapter = alone(ref, delta)
    again = adapter_of(base, adapter.sha256, factors_to_keep(base, adapter))
    wanted, found = dense(base, adapter), dense(base, again)
    assert found.shape == wanted.shape
    assert float((found - wanted).norm() / wanted.norm()) < 0.08
    assert again.sha256 == adapter.sha256
    assert again.coverage.complete


def test_it_takes_less_than_a_byte_for_each_number(
    base: BaseModel, make_adapter: Callable[..., Any]
) -> None:
    adapter = make_adapter(base)
    numbers = sum(one.down.numel() + one.up.numel() for one in adapter.deltas.values())
    assert factors_to_keep(base, adapter).nbytes < numbers


def test_a_change_of_nothing_stays_nothing(base: BaseModel) -> None:
    ref, weight = layer_of(base, 2)
    nothing = LowRank(torch.randn(4, weight.shape[1]), torch.zeros(len(weight), 4), 1.0)
    kept = factors_to_keep(base, alone(ref, nothing))
    assert kept.ranks.tolist() == [0]
    assert adapter_of(base, "a" * 64, kept).deltas == {}


def test_an_adapter_with_biases_is_not_kept(base: BaseModel) -> None:
    ref, weight = layer_of(base, 2)
    biased = LowRank(
        torch.ones(1, weight.shape[1]),
        torch.ones(len(weight), 1),
        1.0,
        bias=torch.ones(len(weight)),
    )
    with pytest.raises(NotKeptError, match="adapter aaaaaaaaaaaa changes biases"):
        factors_to_keep(base, alone(ref, biased))


def test_numbers_that_do_not_fit_the_layers_are_refused(base: BaseModel) -> None:
    ref, delta = deltas(base)["lora"]
    kept = factors_to_keep(base, alone(ref, delta))
    other, _ = layer_of(base, 4)
    with pytest.raises((ValueError, RuntimeError)):
        adapter_of(base, "a" * 64, Factors((other,), kept.ranks, kept.codes, kept.scales))
