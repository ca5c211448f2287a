"""Gradients: kept concept by concept, the same whatever library a concept is in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.gradients import ConceptGradients, GradientPlan, build_gradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan
from loragate_server.models import BaseModel
from loragate_server.progress import silent
from testkit.tiny_models import tiny_base

Result = TypeVar("Result")

PLAN = GradientPlan(
    (
        ProbePlan(pictures=2, times=(0.2,), neutral=9),
        ProbePlan(pictures=2, times=(0.5,), neutral=9, named=True),
    ),
    rank=2,
)


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return tiny_base("sd")


class Counted:
    """Turns that are counted; nothing may be left on the model between two of them."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.count = 0

    def __call__(self, piece: Callable[[], Result]) -> Result:
        self.count += 1
        made = piece()
        assert not any(weight.requires_grad for weight in self.base.denoiser.parameters())
        return made


def of(gradients: ConceptGradients, concept_id: str) -> list[torch.Tensor]:
    """All that a library holds of one concept."""
    number = [one.concept_id for one in gradients.concepts].index(concept_id)
    strata, rank = len(gradients.strata), gradients.plan.rank
    rows = slice(number * strata * rank, (number + 1) * strata * rank)
    found = [
        gradients.norms[ref][number * strata : (number + 1) * strata] for ref in gradients.norms
    ]
    for layer in gradients.layers.values():
        found += [layer.left[rows], layer.right[rows]]
    return found


def test_one_concept_more_computes_one_and_changes_no_bit_of_the_others(
    library: ConceptLibrary,
    base: BaseModel,
    tmp_path: Path,
    draw: Callable[..., bytes],
    fox: Concept,
) -> None:
    turns = Counted(base)
    before = build_gradients(library, base, tmp_path, silent, PLAN, turns)
    of_all, turns.count = turns.count, 0
    more = library.add(fox, [draw(5), draw(6)])
    after = build_gradients(more, base, tmp_path, silent, PLAN, turns)
    # one turn for its pictures, one for each time of each kind of prompt, and one to learn shapes
    assert (of_all, turns.count) == (11 * 3 + 1, 3 + 1)
    assert "fox" in [one.concept_id for one in after.concepts]
    for concept in library.concepts:
        for old, new in zip(
            of(before, concept.concept_id), of(after, concept.concept_id), strict=True
        ):
            assert torch.equal(old, new)


def test_the_order_in_which_concepts_came_changes_no_bit(
    library: ConceptLibrary,
    base: BaseModel,
    tmp_path: Path,
    draw: Callable[..., bytes],
    fox: Concept,
) -> None:
    build_gradients(library, base, tmp_path / "grown", silent, PLAN)
    more = library.add(fox, [draw(5), draw(6)])
    grown = build_gradients(more, base, tmp_path / "grown", silent, PLAN)
    at_once = build_gradients(more, base, tmp_path / "at_once", silent, PLAN)
    for ref, layer in at_once.layers.items():
        assert torch.equal(layer.left, grown.layers[ref].left)
        assert torch.equal(layer.right, grown.layers[ref].right)
        assert torch.equal(at_once.norms[ref], grown.norms[ref])


def test_another_name_needs_nothing_and_another_prompt_its_own_gradients(
    library: ConceptLibrary, base: BaseModel, tmp_path: Path, draw: Callable[..., bytes]
) -> None:
    turns = Counted(base)
    pictures = [path.read_bytes() for path in library.get("cat").picture_files]
    build_gradients(library, base, tmp_path, silent, PLAN, turns)
    turns.count = 0
    same = Concept("tom", "Tom", "animal", "low", "forbidden", library.get("cat").prompts)
    more = library.add(same, pictures)
    assert more.get("tom").picture_sha256 == library.get("cat").picture_sha256
    build_gradients(more, base, tmp_path, silent, PLAN, turns)
    assert turns.count == 0
    other = Concept("leo", "Leo", "animal", "low", "forbidden", ("a lion",))
    build_gradients(more.add(other, pictures), base, tmp_path, silent, PLAN, turns)
    assert turns.count == 2 + 1, "its pictures are known, its prompt is not; one is for shapes"
