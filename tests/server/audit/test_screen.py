"""The screen on tiny models of the real classes: what it predicts is what happens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.algebra import Hadamard, LowRank
from loragate_server.adapter.reference import Strength
from loragate_server.audit import products as products_module
from loragate_server.audit.effects import key_of
from loragate_server.audit.products import products
from loragate_server.audit.response import measure
from loragate_server.audit.screen import (
    degrees,
    hear,
    heat_map,
    screen,
    side_by_side,
    standardised,
)
from loragate_server.audit.weights import Scales, role_of
from loragate_server.concepts.building.compress import compress
from loragate_server.concepts.gradients import ConceptGradients, GradientPlan, restricted
from loragate_server.concepts.probes import ProbePlan
from loragate_server.models import BaseModel
from loragate_server.models.apply import layer_shape
from loragate_server.progress import Leash
from testkit.tiny_models import FAMILIES
from tests.server.audit.steps import PLAN, step_towards

Make = Callable[..., Any]


def only(adapter: Adapter, component: str) -> Adapter:
    deltas = {ref: delta for ref, delta in adapter.deltas.items() if ref.component == component}
    return dataclasses.replace(adapter, deltas=deltas)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_predicted_gain_is_the_measured_one_for_a_small_change(
    family: str, base_of: Make, gradients_of: Make, make_probes: Make, make_adapter: Make
) -> None:
    base = base_of(family)
    gradients = gradients_of(base)
    adapter = only(make_adapter(base, size=1e-3), base.denoiser_component)
    found = screen(base, gradients, [(adapter, Strength())], "reference")
    strata = (len(gradients.concepts), len(gradients.strata))
    predicted = sum(
        found.gain[row] * gradients.norms[ref].double().reshape(strata)
        for row, ref in enumerate(found.layers)
    )
    for number, plan in enumerate(PLAN.plans):
        [response] = measure(
            base,
            [make_probes(base, plan)],
            torch.arange(len(gradients.concepts)),
            [[(adapter, Strength())]],
            batch_rows=4,
            backend="reference",
            leash=Leash(),
        )
        columns = [i for i, s in enumerate(gradients.strata) if s.named == plan.named]
        expected = predicted[:, columns]  # type: ignore[index]
        spread = expected.abs().max()
        assert spread > 1e-7, number
        [change] = response.changes
        torch.testing.assert_close(-change, expected, rtol=0.1, atol=0.08 * float(spread))


def test_a_change_of_the_text_encoder_is_seen_too(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make
) -> None:
    adapter = only(make_adapter(base), "text_encoder")
    found = screen(base, gradients, [(adapter, Strength(1.0, 0.5))], "reference")
    assert {ref.component for ref in found.layers} == {"text_encoder"}
    assert found.complete
    assert float(found.gain.abs().max()) > 0
    stronger = screen(base, gradients, [(adapter, Strength(0.0, 1.0))], "reference")
    torch.testing.assert_close(stronger.gain, 2 * found.gain)


def test_adapters_that_are_active_together_add_up(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make
) -> None:
    first = (make_adapter(seed=1), Strength(0.5, 0.5))
    second = (make_adapter(seed=2, ending=("to_q",)), Strength(-1.0, 1.0))
    both = screen(base, gradients, [first, second], "reference")
    one, other = (screen(base, gradients, [each], "reference") for each in (first, second))
    expected = one.gain.clone()
    for row, ref in enumerate(other.layers):
        expected[one.layers.index(ref)] += other.gain[row]
    torch.testing.assert_close(both.gain, expected, rtol=1e-4, atol=1e-7)


def test_a_dense_change_counts_as_its_factors_do(
    base: BaseModel,
    gradients: ConceptGradients,
    make_adapter: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    adapter = make_adapter()
    dense = {}
    for ref, delta in adapter.deltas.items():
        layer = base.components[ref.component].get_submodule(ref.module)
        weight = delta.dense(layer_shape(layer), 1.0)
        ones = torch.ones(len(weight), 1), torch.ones(1, weight[0].numel())
        # times one everywhere, by an algebra whose response goes through the whole weight
        dense[ref] = Hadamard((weight.flatten(1), torch.eye(ones[1].shape[1])), ones, 1.0)
    written_out = dataclasses.replace(adapter, deltas=dense)
    plain, full = (
        screen(base, gradients, [(each, Strength(0.7, 0.7))], "reference")
        for each in (adapter, written_out)
    )
    torch.testing.assert_close(plain.gain, full.gain, rtol=1e-4, atol=1e-7)
    use = (written_out, Strength(0.7, 0.7))
    beside = (adapter, Strength())
    alone, both = screen(base, gradients, [use], "reference"), [use, beside]
    whole = side_by_side(base, gradients, both, "reference")
    with monkeypatch.context() as patch:  # one dense layer at a time, bit by bit the same
        patch.setattr(products_module, "MOST_DENSE_BYTES", 1)
        assert len([*products(base, gradients, [use], "reference")]) == len(dense)
        pieces = [
            screen(base, gradients, [use], "reference"),
            *side_by_side(base, gradients, both, "reference"),
        ]
    for one, other in zip([alone, *whole], pieces, strict=True):
        assert (one.layers, one.complete) == (other.layers, other.complete)
        assert torch.equal(one.gain, other.gain)
        assert one.shares.rows == other.shares.rows
        assert torch.equal(one.shares.log_share, other.shares.log_share)


def test_a_bias_makes_the_screen_incomplete(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make
) -> None:
    adapter = make_adapter()
    ref, delta = next(iter(adapter.deltas.items()))
    assert isinstance(delta, LowRank)
    biased = dataclasses.replace(delta, bias=torch.ones(delta.up.shape[0]))
    changed = dataclasses.replace(adapter, deltas={**adapter.deltas, ref: biased})
    assert screen(base, gradients, [(adapter, Strength())], "reference").complete
    assert not screen(base, gradients, [(changed, Strength())], "reference").complete


def test_an_adapter_that_has_learned_a_concept_scores_highest_there(
    base: BaseModel, gradients: ConceptGradients
) -> None:
    for target in range(gradients.forbidden_count):
        adapter = step_towards(base, gradients, target, size=0.3)
        found = screen(base, gradients, [(adapter, Strength())], "reference")
        scores = hear(found, gradients, range(gradients.forbidden_count)).scores
        assert int(scores.score.argmax()) == target
        assert float(scores.score[target]) > 3
        degree = degrees(found, gradients, range(gradients.forbidden_count))
        assert int(degree.argmax()) == target


def test_layers_without_weight_have_no_vote(base: BaseModel, gradients: ConceptGradients) -> None:
    both = step_towards(base, gradients, 0, size=0.3)
    values = {ref: delta for ref, delta in both.deltas.items() if ref.module.endswith("to_v")}
    alone = dataclasses.replace(both, deltas=values)
    roles = {role_of(ref): (float(ref in values),) * len(gradients.strata) for ref in both.deltas}
    wanted = range(gradients.forbidden_count)
    found = screen(base, gradients, [(both, Strength())], "reference")
    weighed = hear(found, gradients, wanted, Scales(roles)).scores.score
    expected = screen(base, gradients, [(alone, Strength())], "reference")
    torch.testing.assert_close(weighed, hear(expected, gradients, wanted).scores.score)
    assert not torch.allclose(weighed, hear(found, gradients, wanted).scores.score)


@pytest.mark.parametrize("size", [0.01, 0.1, 1.0, 10.0])
def test_layers_that_no_harmless_adapter_changes_take_nothing_from_the_others(
    base: BaseModel, gradients: ConceptGradients, size: float
) -> None:
    wanted = range(gradients.forbidden_count)
    learned = step_towards(base, gradients, 0, size=0.3)
    usual = {key_of(ref): 1.0 for ref in learned.deltas}
    found = screen(base, gradients, [(learned, Strength())], "reference")
    alone = hear(found, gradients, wanted, Scales({}, usual))
    # the very step that unlearns the concept, in every other layer
    against = dict(learned.deltas)
    for ref, layer in gradients.layers.items():
        if ref not in against and ref.component == base.denoiser_component:
            lines = slice(0, len(gradients.strata) * gradients.plan.rank)
            left = layer.left[lines].t().float()
            against[ref] = LowRank(layer.right[lines].float(), left, size)
    both = dataclasses.replace(learned, deltas=against)
    hidden = screen(base, gradients, [(both, Strength())], "reference")
    heard = hear(hidden, gradients, wanted, Scales({}, usual))
    assert len(both.deltas) > len(learned.deltas)
    assert bool((heard.scores.score >= alone.scores.score - 1e-6).all())
    assert bool((heard.named >= alone.named - 1e-6).all())


def test_degrees_grow_with_strength(base: BaseModel, gradients: ConceptGradients) -> None:
    adapter = step_towards(base, gradients, 0, size=0.3)
    seen = []
    for strength in (0.0, 0.25, 0.5, 1.0, 2.0, 4.0):
        found = screen(base, gradients, [(adapter, Strength(strength))], "reference")
        seen.append(float(degrees(found, gradients, [0])[0]))
    assert seen[0] == 0.0
    assert seen == sorted(seen)
    assert seen[-1] > seen[1] > 0


def test_the_heat_map_names_blocks_and_strata(
    base: BaseModel, gradients: ConceptGradients, make_adapter: Make
) -> None:
    found = screen(base, gradients, [(make_adapter(), Strength())], "reference")
    heat = heat_map(found, gradients, 1)
    assert heat is not None
    assert heat.concept_id == "dog"
    assert heat.times == ("0.20", "0.60", "0.40, named")
    assert len(heat.values) == len(heat.layers) < len(found.layers)
    assert all(len(row) == 3 for row in heat.values)
    nothing = screen(base, gradients, [], "reference")
    assert heat_map(nothing, gradients, 1) is None


def test_layers_that_tell_no_concept_from_another_count_as_zero() -> None:
    gain = torch.ones(2, 5, 1, dtype=torch.float64)
    gain[1, :, 0] = torch.tensor([3.0, 1.0, 2.0, 3.0, 4.0])
    z = standardised(gain, slice(1, None))
    assert z[0].abs().max() == 0
    assert z[1, 1:].mean().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (6, 50), (1, 9)])
def test_compression_is_as_good_as_the_best_of_its_rank(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(shape, generator=generator) @ torch.diag(torch.logspace(0, -3, shape[1]))
    rank = 5
    left, right = compress(matrix, rank)
    assert left.shape == (rank, shape[0])
    assert right.shape == (rank, shape[1])
    unit = matrix / matrix.norm()
    values = torch.linalg.svdvals(unit)
    best = values[rank:].square().sum().sqrt()
    assert (unit - left.t() @ right).norm() <= 1.1 * best + 1e-5


def test_a_gradient_of_zero_gives_directions_of_zero() -> None:
    left, right = compress(torch.zeros(4, 6), 3)
    assert left.abs().max() == right.abs().max() == 0


def test_a_lower_rank_keeps_the_leading_directions(gradients: ConceptGradients) -> None:
    low = restricted(gradients, 2)
    assert low.nbytes * 32 == gradients.nbytes
    ref = next(iter(low.layers))
    kept, whole = low.layers[ref], gradients.layers[ref]
    torch.testing.assert_close(kept.right[2:4], whole.right[64:66])
    for rank in (0, 65):
        with pytest.raises(ValueError, match="rank must be 1 to 64"):
            restricted(gradients, rank)


def test_weights_need_no_gradients_afterwards(base: BaseModel, gradients: ConceptGradients) -> None:
    assert gradients.layers
    for module in base.adaptable_modules().values():
        assert not module.weight.requires_grad  # type: ignore[union-attr]
        assert module.weight.grad is None  # type: ignore[union-attr]


def test_plans_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValueError, match="same neutral bank"):
        GradientPlan(plans=(ProbePlan(neutral=8), ProbePlan(neutral=16)))
    with pytest.raises(ValueError, match="rank must be at least 1"):
        GradientPlan(rank=0)
