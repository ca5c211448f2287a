"""Sketches: the same for the same change of a model, however it is written down."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.algebra import Hadamard, LowRank
from loragate_server.audit.evidence import SKETCH_DIMENSIONS
from loragate_server.audit.sketch import _signs, sketch_of
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel

Make = Callable[..., Any]
Numbers = np.ndarray[Any, np.dtype[np.float32]]


def numbers(base: BaseModel, adapter: Adapter) -> Numbers:
    return np.frombuffer(sketch_of(base, adapter), dtype="<f4")


def changed(adapter: Adapter, change: Callable[[LowRank], Any]) -> Adapter:
    deltas = {ref: change(delta) for ref, delta in adapter.deltas.items()}  # type: ignore[arg-type]
    return dataclasses.replace(adapter, deltas=deltas)


def cosine(one: Numbers, other: Numbers) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def true_inner(base: BaseModel, one: Adapter, other: Adapter) -> float:
    found = 0.0
    for ref in one.deltas.keys() & other.deltas.keys():
        layer = layer_shape(base.components[ref.component].get_submodule(ref.module))
        first, second = (each.deltas[ref].dense(layer, 1.0) for each in (one, other))
        found += float((first * second).sum())
    return found


def test_a_sketch_does_not_depend_on_the_factors(base: BaseModel, make_adapter: Make) -> None:
    adapter = make_adapter(base)
    mix = torch.linalg.qr(torch.randn(64, 64, generator=torch.Generator().manual_seed(1)))[0]

    def rewritten(delta: LowRank) -> LowRank:
        rank = len(delta.down)
        turn = torch.linalg.qr(mix[:rank, :rank])[0]
        down = torch.tensordot(turn, delta.down, 1) * 3
        up = torch.tensordot(delta.up.flatten(1), turn.T, 1).reshape(delta.up.shape)
        return LowRank(down, up, delta.scale / 3)

    plain = numbers(base, adapter)
    assert plain.shape == (2 * SKETCH_DIMENSIONS,)
    np.testing.assert_allclose(
        numbers(base, changed(adapter, rewritten)), plain, atol=1e-5 * abs(plain).max()
    )


def test_a_dense_change_has_the_sketch_of_its_factors(base: BaseModel, make_adapter: Make) -> None:
    adapter = make_adapter(base)
    dense = {}
    for ref, delta in adapter.deltas.items():
        layer = base.components[ref.component].get_submodule(ref.module)
        weight = delta.dense(layer_shape(layer), 1.0).flatten(1)
        ones = torch.ones(len(weight), 1), torch.ones(1, weight.shape[1])
        dense[ref] = Hadamard((weight, torch.eye(weight.shape[1])), ones, 1.0)
    plain = numbers(base, adapter)
    full = numbers(base, dataclasses.replace(adapter, deltas=dense))
    np.testing.assert_allclose(full, plain, atol=1e-4 * abs(plain).max())


def test_sketches_add_up_and_grow_with_the_scale(base: BaseModel, make_adapter: Make) -> None:
    one, other = make_adapter(base, seed=1), make_adapter(base, seed=2)

    def both(ref: Any) -> LowRank:
        first, second = one.deltas[ref], other.deltas[ref]
        return LowRank(
            torch.cat([first.down * first.scale, second.down * second.scale]),
            torch.cat([first.up, second.up], 1),
            2.0,
        )

    merged = dataclasses.replace(one, deltas={ref: both(ref) for ref in one.deltas})
    expected = 2 * (numbers(base, one) + numbers(base, other))
    np.testing.assert_allclose(numbers(base, merged), expected, atol=1e-4 * abs(expected).max())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_rounding_leaves_a_sketch_almost_as_it_is(
    base: BaseModel, make_adapter: Make, dtype: torch.dtype
) -> None:
    adapter = make_adapter(base)
    rounded = changed(
        adapter,
        lambda one: LowRank(one.down.to(dtype).float(), one.up.to(dtype).float(), one.scale),
    )
    assert cosine(numbers(base, adapter), numbers(base, rounded)) > 0.99


def test_inner_products_are_those_of_the_changes(base: BaseModel, make_adapter: Make) -> None:
    adapters = [make_adapter(base, seed=seed) for seed in range(12)]
    made = [numbers(base, one) for one in adapters]
    errors = []
    for i, one in enumerate(adapters):
        norm = true_inner(base, one, one)
        assert float(made[i] @ made[i]) == pytest.approx(norm, rel=0.35)
        for j in range(i):
            other = true_inner(base, adapters[j], adapters[j])
            truth = true_inner(base, one, adapters[j])
            errors.append((float(made[i] @ made[j]) - truth) / (norm * other) ** 0.5)
    assert abs(np.mean(errors)) < 0.03
    assert np.std(errors) < 0.1


def test_what_changes_nothing_or_is_not_finite_has_no_sketch(
    base: BaseModel, make_adapter: Make
) -> None:
    adapter = make_adapter(base)
    for scale in (0.0, float("nan"), float("inf")):
        silent = changed(adapter, lambda one, scale=scale: LowRank(one.down, one.up, scale))
        assert not numbers(base, silent).any()
    assert not numbers(base, dataclasses.replace(adapter, deltas={})).any()


def only(adapter: Adapter, base: BaseModel, *, denoiser: bool) -> Adapter:
    kept = {
        ref: delta
        for ref, delta in adapter.deltas.items()
        if (ref.component == base.denoiser_component) is denoiser
    }
    assert kept
    return dataclasses.replace(adapter, deltas=kept)


def test_denoiser_and_text_encoders_have_numbers_of_their_own(
    base: BaseModel, make_adapter: Make
) -> None:
    adapter = make_adapter(base)
    whole = numbers(base, adapter)
    denoiser = numbers(base, only(adapter, base, denoiser=True))
    text_encoder = numbers(base, only(adapter, base, denoiser=False))
    np.testing.assert_array_equal(denoiser, whole[:SKETCH_DIMENSIONS])
    np.testing.assert_array_equal(text_encoder[SKETCH_DIMENSIONS:], whole[SKETCH_DIMENSIONS:])
    assert not text_encoder[:SKETCH_DIMENSIONS].any()


@pytest.mark.parametrize("large_down", [False, True])
def test_one_factor_may_be_as_large_as_the_other_is_small(
    base: BaseModel, make_adapter: Make, large_down: bool
) -> None:
    adapter = make_adapter(base)

    def turned(one: LowRank) -> LowRank:
        down, up = one.down.double(), one.up.double()
        size = 3e38 / float((down if large_down else up).abs().max())
        size = 1 / size if large_down else size
        return LowRank((down / size).float(), (up * size).float(), one.scale)

    assert cosine(numbers(base, adapter), numbers(base, changed(adapter, turned))) > 0.999


def test_a_layer_that_overflows_does_not_hide_the_others(
    base: BaseModel, make_adapter: Make
) -> None:
    adapter = make_adapter(base)
    first, *rest = adapter.deltas
    other = dataclasses.replace(adapter, deltas={ref: adapter.deltas[ref] for ref in rest})
    loud = adapter.deltas[first]
    assert isinstance(loud, LowRank)
    hidden = {**adapter.deltas, first: LowRank(loud.down * 1e30, loud.up * 1e30, 1.0)}
    found = numbers(base, dataclasses.replace(adapter, deltas=hidden))
    np.testing.assert_allclose(found, numbers(base, other), rtol=1e-5, atol=1e-6)


def test_the_projections_of_a_layer_are_the_same_on_every_machine() -> None:
    """Sketches of other days lie in databases: whoever changes this raises SKETCH_VERSION."""
    signs = _signs(ModuleRef("unet", "mid_block.attentions.0.proj_in"), 3, 5)
    data = b"".join(
        one.numpy().astype("<i4").tobytes() for one in (signs.left, signs.right, signs.places)
    )
    assert signs.left.shape == (64, 3)
    assert signs.right.shape == (64, 5)
    assert hashlib.sha256(data).hexdigest()[:16] == "296380420d930d3b"
