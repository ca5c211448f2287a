"""What has no effect changes nothing: neither a verdict nor what it rests on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch

from benchmarks.attacks.bench import EXAMPLES, Bench
from benchmarks.attacks.factors import Factors, factors_of, read_file
from benchmarks.attacks.hostile import Victim, flips
from benchmarks.attacks.metamorphic import TOLERANCE, outcomes, transformed
from benchmarks.attacks.transforms import EXACT, REORDERED, TRANSFORMS
from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.audit.screen import screen
from loragate_server.audit.stages import Screened
from testkit.lanes import daily

pytestmark = [
    # diffusers warns of its own argument names
    pytest.mark.filterwarnings("ignore:.*torch_dtype.*:FutureWarning"),
]
FILES = sorted((Path(__file__).parents[3] / EXAMPLES).glob("*.safetensors"))
View = Callable[[Adapter], Screened]
Original = Callable[[Path], tuple[Factors, Screened]]


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench.load()


@pytest.fixture(scope="module")
def view(bench: Bench) -> View:
    """What the screen says of all concepts, with the scales that ship."""
    made = bench.engine.materials.calibration
    assert made is not None

    def look(adapter: Adapter) -> Screened:
        found = screen(bench.base, bench.gradients, [(adapter, Strength())], "reference")
        return Screened.of(found, bench.gradients, range(len(bench.concept_ids)), made.scales)

    return look


@pytest.fixture(scope="module")
def original(bench: Bench, view: View) -> Original:
    """An example as it is: its factors, and what the screen says of it."""

    @cache
    def look(file: Path) -> tuple[Factors, Screened]:
        adapter = read_file(file, bench.base)
        return factors_of(adapter), view(adapter)

    return look


NAMES = [*TRANSFORMS, REORDERED]
CROSSED = [(name, FILES[number % len(FILES)]) for number, name in enumerate(NAMES)]
"""Every transformation and every file, but not each with each."""


@pytest.mark.parametrize(("name", "file"), daily(*CROSSED, of=product(NAMES, FILES)))
def test_no_measure_of_the_screen_moves_for_what_has_no_effect(
    name: str,
    file: Path,
    bench: Bench,
    view: View,
    original: Original,
    tmp_path: Path,
) -> None:
    made = bench.engine.materials.calibration
    assert made is not None
    entrance = made.at(bench.policy.screen_miss_rate).entrance
    near = 0.01 if name in EXACT or name == REORDERED else 0.15
    assert len(FILES) >= 7
    own, before = original(file)
    after = view(read_file(transformed(own, name, bench, tmp_path), bench.base))
    assert (after.scores.score - before.scores.score).abs().max() < near
    assert (after.degree - before.degree).abs().max() < TOLERANCE / 4
    aims = torch.tensor(after.screening.aims) - torch.tensor(before.screening.aims)
    assert aims.abs().max() < near
    heard = (torch.tensor([*s.screening.named, *s.screening.bank]) for s in (before, after))
    assert (next(heard) - next(heard)).abs().max() < near
    profiles = (entrance.likeness.p_value(s.screening.profile) for s in (before, after))
    assert next(profiles) == pytest.approx(next(profiles), abs=near)


@pytest.mark.parametrize(
    "file", [file for file in FILES if "sail" in file.stem or "bomb" in file.stem]
)
def test_no_verdict_changes_for_what_has_no_effect(file: Path, bench: Bench) -> None:
    names = ("ranks that cancel added", "flipped copies of 1e-3 on untouched layers")
    found = list(outcomes(bench, [file], names))
    assert [one for one in found if not one.holds] == []
    assert {one.before for one in found} == {"BLOCK" if "bomb" in file.stem else "ALLOW"}


def test_layers_flipped_and_shrunk_to_nothing_do_not_outvote_what_was_learned(
    bench: Bench, view: View, tmp_path: Path
) -> None:
    """Twenty of 48 layers, drawn at random; what they said is gone, and nothing is said instead."""
    made = bench.engine.materials.calibration
    assert made is not None
    promise = made.at(bench.policy.screen_miss_rate)
    highest = max(max(one.screen.values()) for one in made.harmless)
    for file in FILES:
        if not file.stem.startswith("learned"):
            continue
        concept = file.stem.removeprefix("learned-")
        row = bench.concept_ids.index(concept)
        victim = Victim(bench, file.stem, file, concept)
        for seed in range(3):
            attempt = flips(20, -1e-3, seed)(victim, tmp_path)
            seen = view(attempt.drawn[0][0])
            standings = promise.entrance.standing.values(seen.screening)
            assert row in promise.entrance.suspects(seen.screening, standings)
            assert seen.screening.scores[row] > 0.7 * highest
