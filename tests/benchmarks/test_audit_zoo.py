"""The zoo keeps its splits apart, and its figures are computed as they are named."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.audit.data import CORE, Measured, Study
from benchmarks.audit.evaluate import degree_correlations, hard_case, promised, quality, verdict
from benchmarks.audit.metrics import Share, above, acceptance, auroc, threshold_at
from benchmarks.audit.subjects import GROUPS, LOOK_ALIKE, similarity, subjects
from benchmarks.audit.zoo import concept_id, entries, fast_entries
from emoji_tiny.catalogue import FONT_PATH, split

pytestmark = pytest.mark.skipif(
    not Path(FONT_PATH).exists(), reason="needs Debian's fonts-noto-color-emoji"
)


def of(family: str, part: str) -> list[str]:
    return [one.name for one in entries() if (one.family, one.split) == (family, part)]


def test_there_are_enough_adapters_for_a_rate_of_one_percent() -> None:
    assert len(of("concept", "development")) + len(of("concept", "test")) >= 120
    assert len(of("harmless", "development")) + len(of("harmless", "test")) >= 300
    assert len({one.name for one in entries()}) == len(entries())
    assert len(fast_entries()) == 40


def test_development_and_test_share_neither_concepts_nor_seeds() -> None:
    by_split: dict[str, tuple[set[str], set[int]]] = {}
    for one in entries():
        learned, seeds = by_split.setdefault(one.split, (set(), set()))
        learned |= set(one.learned)
        seeds.add(one.recipe.seed)
    development, test = by_split["development"], by_split["test"]
    assert not development[0] & test[0]
    assert not development[1] & test[1]


def test_the_test_split_has_recipes_that_development_does_not_have() -> None:
    recipes = {
        part: {
            (one.recipe.rank, one.recipe.learning_rate, one.recipe.steps)
            for one in entries()
            if one.family in ("concept", "harmless") and one.split == part
        }
        for part in ("development", "test")
    }
    assert len(recipes["test"] - recipes["development"]) > 20


def test_no_subject_has_two_roles_and_the_denoiser_saw_none_of_them() -> None:
    chosen = subjects()
    groups = "".join(GROUPS.values())
    roles = [chosen.development, chosen.test, chosen.harmless, groups, split().neutral]
    for index, one in enumerate(roles):
        for other in roles[index + 1 :]:
            assert not {*one} & {*other}
    seen = {*split().train}
    assert not seen & {*chosen.concepts, *chosen.harmless, *split().neutral}
    probes = "".join(chars[8:] for chars in GROUPS.values())
    assert not seen & {*probes}


def test_no_harmless_subject_looks_like_a_concept() -> None:
    chosen = subjects()
    for char in random.Random(1).sample(chosen.harmless, 40):
        assert max(similarity(char, concept) for concept in chosen.concepts) < LOOK_ALIKE
    for concept, char in chosen.look_alikes.items():
        assert similarity(char, concept) >= LOOK_ALIKE


def measured(
    name: str, family: str, part: str, learned: str, rng: random.Random, high: float
) -> Measured:
    screen = {concept: rng.gauss(0, 1) for concept in CORE}
    if learned:
        screen[learned] = high + rng.gauss(0, 1)
    response = {c: s + rng.gauss(0, 0.5) for c, s in screen.items() if s > 1.5 or c == learned}
    aim = {concept: (s + rng.gauss(0, 0.5)) / 10 for concept, s in screen.items()}
    degree = {concept: max(0.0, 10 * s) for concept, s in screen.items()}
    named = {c: (s + rng.gauss(0, 0.5), s + rng.gauss(0, 0.5)) for c, s in screen.items()}
    return Measured(
        name,
        family,
        part,
        (learned,) if learned else (),
        screen,
        screen,
        aim,
        named,
        tuple((rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(48)),
        (rng.gauss(0, 1), rng.gauss(0, 1), rng.gauss(0, 1), rng.gauss(0, 1), 0.0),
        response,
        degree,
        understood=True,
        screen_s=0.01,
    )


@pytest.fixture(scope="module")
def study() -> Study:
    """Scores as they would be if harmless ones were normal and learned ones far away."""
    rng = random.Random(5)
    concepts = [concept_id(char) for char in subjects().test]
    made = []
    for part, count in (("development", 40), ("test", 80)):
        made += [
            measured(f"c-{part}-{i}", "concept", part, concepts[i % 40], rng, 9.0)
            for i in range(count)
        ]
        made += [measured(f"h-{part}-{i}", "harmless", part, "", rng, 0.0) for i in range(150)]
    made += [measured(f"x-{i}", "merged-with-one", "test", concepts[i], rng, 2.0) for i in range(9)]
    return Study(tuple(made))


def test_learned_concepts_far_away_are_found_and_named(study: Study) -> None:
    for promise in (None, study.promise):
        found = quality(study, promise, study.promise.family)
        assert found.pair_auroc > 0.999
        assert found.adapter_rate.value > 0.95
        assert found.identified.value > 0.95
        assert found.identified.total == 80


def test_the_promised_rate_is_counted_on_unseen_harmless_adapters(study: Study) -> None:
    rows = promised(study)
    assert [row["promised"] for row in rows] == [0.10, 0.05, 0.01]
    assert all(row["of"] == 150 for row in rows)
    # of one calibration; over many of them the rate is exact, see test_calibration
    assert all(abs(row["observed"] - row["promised"]) < 0.07 for row in rows)
    for row in rows:
        assert row["holds"] == (row["accepted_from"] <= row["blocked"] <= row["accepted_to"])


def test_a_hard_case_counts_what_was_found_by_name(study: Study) -> None:
    row = hard_case(study, "merged-with-one")
    assert row["adapters"] == row["cascade"].total == 9
    assert row["cascade"].hits < 6
    assert sum(row["verdicts"].values()) == 9
    assert verdict(study, study.of("concept", "test")[0]) == "BLOCK"


def test_degrees_are_compared_along_each_adapter_alone() -> None:
    rng = random.Random(2)
    concept = CORE[0]
    made = []
    for stem in ("one", "two"):
        for steps in (25, 50, 100):
            point = measured(f"{stem}@{steps}", "by-steps", "test", concept, rng, 3.0)
            point.degree[concept] = steps / 5 if stem == "one" else 30 - steps / 10
            made.append(point)
    found = degree_correlations(Study(tuple(made)))
    assert sorted(found["steps"]["correlations"]) == pytest.approx([-1.0, 1.0])


def test_shares_have_exact_bounds() -> None:
    assert Share(0, 299).bounds[1] == pytest.approx(0.0123, abs=2e-4)
    assert Share(59, 59).bounds[0] == pytest.approx(0.939, abs=1e-3)
    assert Share(3, 4).value == 0.75
    assert str(Share(0, 0)) == "-"


def test_thresholds_let_no_more_than_the_rate_through() -> None:
    negatives = [float(value) for value in range(200)]
    assert above(negatives, threshold_at(negatives, 0.01)).hits == 2
    assert above(negatives, threshold_at(negatives, 0.10)).hits == 20
    assert auroc([2.0, 3.0], [1.0, 2.0]) == pytest.approx(0.875)
    low, high = acceptance(150, 0.01)
    assert low == 0
    assert 3 <= high <= 5
