"""Several adaptations in shared forward passes, and what the base model need not be asked again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from loragate_server.adapter.reference import Strength
from loragate_server.audit.batching import BlockRows, exact_batch_rows, exact_copies
from loragate_server.audit.passes import BASE, Item, KnownLosses, passes_of, watched_concepts
from loragate_server.audit.response import Adaptation, Response, measure
from loragate_server.concepts.probes import ProbePlan
from loragate_server.errors import NoDecisionError
from loragate_server.models import BaseModel
from loragate_server.progress import Leash

Make = Callable[..., Any]


def run(
    base: BaseModel, sets: Any, adaptations: list[Adaptation], rows: int = 8, **options: Any
) -> list[Response]:
    sets = sets if isinstance(sets, list) else [sets]
    options = {"watched": len(sets[0].concepts), "leash": Leash(), **options}
    return measure(
        base,
        sets,
        torch.arange(len(sets[0].concepts)),
        adaptations,
        batch_rows=rows,
        backend="reference",
        **options,
    )


@pytest.fixture
def sizes(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each forward pass."""
    seen = []
    denoise = base.denoise

    def watching(noisy: Any, times: Any, conditioning: Any) -> Any:
        seen.append(len(noisy))
        return denoise(noisy, times, conditioning)

    monkeypatch.setattr(base, "denoise", watching)
    return seen


def test_adaptations_in_one_batch_do_not_touch_each_other(
    base: BaseModel, make_probes: Make, make_adapter: Make
) -> None:
    probes = make_probes(base)
    adaptations: list[Adaptation] = [
        [(make_adapter(seed=1), Strength())],
        [(make_adapter(size=0.0), Strength())],
        [(make_adapter(seed=2), Strength(0.5)), (make_adapter(seed=3), Strength(0.2))],
    ]
    together = run(base, probes, adaptations)
    for shared, adaptation in zip(together, adaptations, strict=True):
        [alone] = run(base, probes, [adaptation])
        torch.testing.assert_close(shared.changes, alone.changes, rtol=2e-3, atol=2e-5)
        for one, other in zip(
            shared.profile.profile(0, slice(3, None)),
            alone.profile.profile(0, slice(3, None)),
            strict=True,
        ):
            assert one.layer == other.layer
            assert abs(one.relative_change - other.relative_change) < 1e-4
    assert together[0].changes[0].abs().max() > 0.01


def test_one_adaptation_of_nan_does_not_spoil_another(
    base: BaseModel, make_probes: Make, make_adapter: Make
) -> None:
    probes = make_probes(base)
    good: Adaptation = [(make_adapter(seed=1), Strength())]
    bad: Adaptation = [(make_adapter(seed=2), Strength(float("nan")))]
    known = KnownLosses()
    for watched in (len(probes.concepts), 1, 0):
        fine, broken = run(base, probes, [good, bad], watched=watched, known=known)
        assert fine.profile.nonfinite_layer is None
        assert fine.changes[0].isfinite().all()
        assert (broken.profile.nonfinite_layer is not None) == (watched > 0)
        assert broken.changes[0].isnan().all()


def test_the_last_pass_is_filled_up_but_counted_once(
    base: BaseModel, make_probes: Make, make_adapter: Make, sizes: list[int]
) -> None:
    probes = make_probes(base)
    used: list[Adaptation] = [[(make_adapter(), Strength())]]
    [filled] = run(base, probes, used, rows=30)
    assert sizes == [60, 60]
    [exact] = run(base, probes, used, rows=22)
    assert sizes[2:] == [44, 44]
    assert filled.changes[0].shape == (11, 4)
    torch.testing.assert_close(filled.changes, exact.changes, rtol=2e-3, atol=2e-5)
    for one, other in zip(
        filled.profile.profile(1, slice(3, None)),
        exact.profile.profile(1, slice(3, None)),
        strict=True,
    ):
        assert abs(one.relative_change - other.relative_change) < 1e-5
        assert abs(one.concept_contrast - other.concept_contrast) < 1e-4


@pytest.mark.parametrize("count", [1, 3])
def test_the_base_model_is_asked_once_and_no_bit_changes(
    base: BaseModel, make_probes: Make, make_adapter: Make, sizes: list[int], count: int
) -> None:
    sets = [make_probes(base), make_probes(base, ProbePlan(2, (0.3,), 8, named=True))]
    found = exact_batch_rows(base, sets[0], 8)
    if found != BlockRows(8, exact=True) or exact_copies(base, sets[0], 8, 3) < count:
        pytest.skip("on this machine a row of 8 depends on its place")
    sizes.clear()
    adaptations: list[Adaptation] = [
        [(make_adapter(seed=seed), Strength())] for seed in range(count - 1)
    ]
    adaptations.append([(make_adapter(size=0.0), Strength())])
    known = KnownLosses()
    first = run(base, sets, adaptations, watched=2, known=known)
    cost = len(sizes)
    second = run(base, sets, adaptations, watched=2, known=known)
    # 44 rows and 22, in blocks of 8: 6 and 3, the first of which is seen by the base model as well
    assert cost == 9
    assert len(sizes) - cost == 1 + -(-8 * count // (1 + count))
    assert set(sizes) == {8 * (1 + count)}
    assert len(known) == 1
    for one, other in zip(first, second, strict=True):
        assert all(map(torch.equal, one.changes, other.changes))
        assert one.profile.profile(0, slice(1, 2)) == other.profile.profile(0, slice(1, 2))
    assert all(not change.any() for change in second[-1].changes), "no effect is exactly none"


def test_what_is_known_of_some_concepts_is_not_taken_for_others(
    base: BaseModel, make_probes: Make, make_adapter: Make
) -> None:
    probes = make_probes(base)
    known = KnownLosses()
    adaptation: Adaptation = [(make_adapter(), Strength())]

    def asked(concepts: list[int], rows: int = 8, known: KnownLosses | None = None) -> Any:
        [response] = measure(
            base,
            [probes],
            torch.tensor(concepts),
            [adaptation],
            batch_rows=rows,
            backend="reference",
            leash=Leash(),
            known=known,
        )
        return response.changes[0]

    choices = [([0, 3, 4], 8), ([3, 0, 4], 8), ([0, 3], 8), ([0, 3, 4], 6)]
    for concepts, rows in choices * 2:
        found, exact = asked(concepts, rows, known), asked(concepts, rows)
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-7)
    assert len(known) == len(choices)


def test_what_was_asked_for_longest_ago_is_forgotten() -> None:
    known = KnownLosses(most=8)
    for name in "ab":
        known.put(name, [torch.zeros(2), torch.ones(2)])
    assert known.get("a") is not None
    known.put("c", [torch.zeros(4)])
    assert [known.get(name) is not None for name in "abc"] == [True, False, True]


def test_what_may_be_a_passing_fault_is_not_remembered() -> None:
    known = KnownLosses()
    known.put("a", [torch.ones(2), torch.tensor([1.0, float("nan")])])
    assert known.get("a") is None


def test_nothing_is_remembered_of_the_passes_that_losses_came_from() -> None:
    known = KnownLosses()
    whole = torch.arange(1000.0)
    known.put("a", list(whole[:4].split(2)))
    found = known.get("a")
    assert found is not None
    assert found.tolist() == [[0, 1], [2, 3]]
    assert found.untyped_storage().nbytes() == 16


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("sides", [2, 3, 5])
@pytest.mark.parametrize("watched", [0, 1, 4])
def test_every_side_sees_every_block_in_passes_of_one_size(
    watched: int, sides: int, known: bool
) -> None:
    blocks = 7
    passes = list(passes_of(blocks, watched, sides, known=known))
    assert {len(items) for items in passes} == {sides}
    assert passes[:watched] == [[Item(side, block) for side in range(sides)] for block in range(watched)]  # noqa: E501  # fmt: skip
    seen = [item for items in passes for item in items]
    adapted = [item for item in seen if item.side != BASE]
    assert len(adapted) == len(set(adapted)) == blocks * (sides - 1)
    if not known:
        assert {item.block for item in seen if item.side == BASE} == set(range(blocks))
    least = watched * sides + (blocks - watched) * (sides - known)
    assert len(seen) - least < sides, "no pass is run for filling alone"


@pytest.mark.parametrize(
    ("suspects", "concepts", "rows", "size", "watched"),
    [
        (1, 33, 4, 24, 6),
        (3, 35, 4, 24, 12),
        (16, 48, 4, 24, 24),
        (1, 3, 4, 24, 3),
        (2, 40, 3, 4, 6),
        (1, 40, 4, 2, 5),
    ],
)
def test_all_suspects_are_watched_and_some_of_the_bank(
    suspects: int, concepts: int, rows: int, size: int, watched: int
) -> None:
    assert watched_concepts(suspects, concepts, rows, size) == watched


def test_a_pass_in_which_no_layer_is_compared_stops_at_the_next_one(
    base: BaseModel, make_probes: Make, make_adapter: Make
) -> None:
    leash = Leash()

    begun = []

    def cancel(_module: Any, _inputs: Any, _output: Any) -> None:
        begun.append(1)
        leash.cancel()

    handle = base.denoiser.conv_in.register_forward_hook(cancel)
    try:
        with pytest.raises(NoDecisionError, match="went away"):
            run(base, make_probes(base), [[(make_adapter(), Strength())]], watched=0, leash=leash)
    finally:
        handle.remove()
    assert len(begun) == 1
