"""The lean way beside the dense one: the same directions, from sketches and a few rows at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.building import dense, lean
from loragate_server.concepts.building.sketch import Sketch, Widths, is_whole
from loragate_server.concepts.building.stratum import Rows, key, layers_of, weights_of
from loragate_server.concepts.gradients import GradientPlan, LeanPlan, build_gradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan
from loragate_server.errors import NoDecisionError
from loragate_server.progress import silent
from testkit.tiny_models import FAMILIES, tiny_base

RANK = 2
NARROW = Widths(16, 60)
"""A third and a half of what is used; at that, no layer of a tiny model would be sketched."""
MORE_LOST = 0.08
BY_NORM = 0.06
"""What the lean way may cost where a layer is sketched: so much more of a unit gradient is left
over by its directions than by those of the dense way, and so large an error of the norm. Here
noise is shown to random models, whose convolutions have gradients without any leading direction;
of the transformers nothing in a hundred is lost."""

Made = dict[str, Tensor]


def rows_of(count: int = 3) -> Rows:
    generator = torch.Generator().manual_seed(3)
    shape = (count, 4, 8, 8)
    noisy, target = (torch.randn(shape, generator=generator) for _ in range(2))
    return Rows("cat", 0.3, "a red cat", noisy, target, torch.full((count,), 0.3))


def product(made: Made, ref: ModuleRef) -> Tensor:
    """What the directions of a layer stand for."""
    left, right = (made[key(side, ref)].float() for side in ("left", "right"))
    return left.t() @ right


@pytest.mark.parametrize("family", FAMILIES)
def test_directions_and_norms_are_those_of_the_dense_way(family: str) -> None:
    base = tiny_base(family)
    rows = rows_of()
    wanted = dense.of_rows(base, rows, RANK)
    made = lean.of_rows(base, rows, RANK, NARROW, 2)
    assert made.keys() == wanted.keys()
    weights = weights_of(base)
    with dense.differentiable(weights.values()):
        whole = dense.gradients_of(base, rows, list(weights.values()))
    lost = []
    for (ref, layer), gradient in zip(layers_of(base).items(), whole, strict=True):
        exact = float(wanted[key("norm", ref)])
        assert float(made[key("norm", ref)]) == pytest.approx(exact, rel=BY_NORM, abs=1e-9), ref
        if not exact:
            assert not product(made, ref).any()
        elif not is_whole(layer, NARROW):
            unit = gradient.flatten(1) / gradient.norm()
            left_over = [(unit - product(each, ref)).norm() for each in (made, wanted)]
            lost.append(float(left_over[0] - left_over[1]))
    assert len(lost) >= 10
    assert max(lost) < (MORE_LOST if base.denoiser_component == "unet" else MORE_LOST / 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_held_in_whole_it_is_the_dense_way_but_for_rounding(family: str) -> None:
    base = tiny_base(family)
    rows = rows_of()
    wanted = dense.of_rows(base, rows, RANK)
    made = lean.of_rows(base, rows, RANK, Widths(500, 1000), 2)
    for ref in layers_of(base):
        assert torch.allclose(
            made[key("norm", ref)], wanted[key("norm", ref)], rtol=1e-3, atol=1e-9
        )
        assert torch.allclose(product(made, ref), product(wanted, ref), atol=2e-3), ref


def test_how_many_rows_go_at_once_changes_rounding_alone() -> None:
    base = tiny_base("sd")
    one, all_ = (lean.of_rows(base, rows_of(), RANK, NARROW, count) for count in (1, 3))
    for ref in layers_of(base):
        assert torch.allclose(one[key("norm", ref)], all_[key("norm", ref)], rtol=1e-3, atol=1e-9)
        assert torch.allclose(product(one, ref), product(all_, ref), atol=5e-3), ref


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_as_before(family: str) -> None:
    base = tiny_base(family)
    lean.of_rows(base, rows_of(), RANK, NARROW, 2)
    for component in base.components.values():
        for module in component.modules():
            for hook in module._forward_hooks.values():
                assert "loragate" not in getattr(hook, "func", hook).__module__
        for weight in component.parameters():
            assert weight.grad is None
            assert not weight.requires_grad
    assert not base.denoiser.is_gradient_checkpointing


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(90, 70),
        nn.Linear(70, 90),
        nn.Conv2d(20, 30, 3, padding=1),
        nn.Conv2d(30, 90, 3, padding=1, stride=2),
        nn.Conv2d(80, 90, 1),
    ],
)
def test_a_matrix_of_low_rank_is_found_to_the_last_digits(layer: nn.Linear | nn.Conv2d) -> None:
    """Three tokens, or one place of one picture: no sketch of that loses anything."""
    assert not is_whole(layer, NARROW)
    generator = torch.Generator().manual_seed(1)
    if isinstance(layer, nn.Linear):
        given = torch.randn(3, layer.in_features, generator=generator)
        pulled = torch.randn(3, layer.out_features, generator=generator)
    else:
        given = torch.randn(2, layer.in_channels, 6, 6, generator=generator)
        pulled = torch.zeros_like(layer(given))
        pulled[:, :, 1, 1] = torch.randn(2, layer.out_channels, generator=generator)
    [whole] = torch.autograd.grad(layer(given), layer.weight, pulled)
    sketch = Sketch(layer, NARROW, torch.device("cpu"))
    sketch.add(given, pulled)
    norm, left, right = sketch.finish(4)
    assert float(norm) == pytest.approx(float(whole.norm()), rel=1e-4)
    assert torch.allclose(left.t() @ right * norm, whole.flatten(1), atol=1e-3 * float(norm))


def test_what_one_kind_made_is_never_taken_for_what_another_would(
    library: ConceptLibrary, tmp_path: Path
) -> None:
    base = tiny_base("sd")
    probes = (ProbePlan(pictures=2, times=(0.2,), neutral=9),)
    dense_plan, lean_plan = GradientPlan(probes, 2), LeanPlan(probes, 2, NARROW)
    wide = LeanPlan(probes, 2, Widths(20, 60))
    assert len({repr(plan) for plan in (dense_plan, lean_plan, wide)}) == 3
    for plan in (dense_plan, lean_plan, wide):
        build_gradients(library, base, tmp_path, silent, plan)
    assert len(list(tmp_path.glob("gradients-*"))) == 3 * len(library.concepts)


def test_the_name_of_what_the_dense_way_makes_is_what_it_was() -> None:
    """Cached gradients and calibrations that exist are bound to it."""
    assert repr(GradientPlan()) == (
        "GradientPlan(plans=(ProbePlan(pictures=12, times=(0.16, 0.75), neutral=64, "
        "prompt='a picture', named=False, seed=2504), ProbePlan(pictures=12, times=(0.3, 0.6), "
        "neutral=64, prompt='a picture', named=True, seed=2504)), rank=4)"
    )


@pytest.mark.parametrize("widths", [(0, 4), (4, 5), (4, 3)])
def test_sketches_of_no_use_are_refused(widths: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="sketches of width"):
        Widths(*widths)


def test_a_gradient_that_is_not_finite_names_its_layer_in_the_lean_way_too(
    library: ConceptLibrary, tmp_path: Path
) -> None:
    base = tiny_base("sd")
    with torch.no_grad():
        next(base.denoiser.parameters()).fill_(float("nan"))
    plan = LeanPlan((ProbePlan(pictures=2, times=(0.2,), neutral=9),), 2, NARROW)

    with pytest.raises(NoDecisionError, match=r"layer (unet|text_encoder)\..* is not finite"):
        build_gradients(library, base, tmp_path, silent, plan)
