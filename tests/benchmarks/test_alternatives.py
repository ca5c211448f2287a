"""The alternatives: that each measures what it says, and that the figures are counted right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.audit.alternatives import classifier
from benchmarks.audit.alternatives.gaussian import GaussianActivations
from benchmarks.audit.alternatives.generate import draw
from benchmarks.audit.alternatives.metadata import names
from benchmarks.audit.alternatives.paia import Paia, outlier_score
from benchmarks.audit.alternatives.plan import Question, asked
from benchmarks.audit.alternatives.registry import ALTERNATIVES, Alternative, named
from benchmarks.audit.alternatives.results import Level, Results, Row, load
from benchmarks.audit.alternatives.run import linear_probe, run_pairs
from benchmarks.audit.alternatives.summary import clopper_pearson, summary, threshold
from benchmarks.audit.alternatives.tools import Tools, concept_ids
from benchmarks.audit.alternatives.weights import RandomProjection, WeightStatistics
from benchmarks.audit.derive import Subject
from benchmarks.audit.subjects import subjects
from benchmarks.audit.zoo import concept_id, entries

EXAMPLES = Path(__file__).parents[2] / "examples" / "adapters"
BOMB = concept_id("💣")


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    folder = tmp_path_factory.mktemp("alternatives")
    return Tools.load(folder, folder / "library")


def example(name: str, *learned: str) -> Subject:
    file = EXAMPLES / f"{name}.safetensors"
    return Subject(name, "concept" if learned else "harmless", "test", learned, (file,))


def row(family: str, score: float, *, wide: bool = False, concept: str = "c-1") -> Row:
    learned = family not in ("harmless", "look-alike")
    name = f"{family}-{score}"
    return Row(name, family, "test", concept, learned, score, 1.0, 0.5, 0.8, 0.25, wide)


class Counting:
    """A scorer that counts what it is asked."""

    asked = 0

    def __init__(self, tools: Tools) -> None:
        self.facts = {"figure": 1.0}

    def knows(self, concept: str) -> bool:
        return concept != "unknown"

    def warm(self, concept: str) -> None:
        assert concept != "unknown"

    def prepare(self, subject: Subject) -> Callable[[str], float]:
        def score(concept: str) -> float:
            Counting.asked += 1
            return float(len(concept))

        return score


def test_every_alternative_is_found_by_name() -> None:
    for each in ALTERNATIVES:
        assert named(each.name) is each
        assert (each.scorer is None) == (each.level == "adapter")
        assert (each.features is None) == (each.level == "pair")


def test_classes_are_disjoint_and_concepts_come_first() -> None:
    chars = classifier.classes()
    assert len(set(chars)) == len(chars) == 64 + 48 + classifier.OTHERS
    assert tuple(map(concept_id, chars[:64])) == concept_ids()


def test_a_small_classifier_learns_renders_as_the_decoder_shows_them(tools: Tools) -> None:
    chars = ("💣", "🎅", "👻")
    clean = classifier.rendered(chars, 24, seed=1)
    decoded = classifier.through_decoder(tools.base, clean, 0.3, seed=2)
    assert decoded.values.shape == clean.values.shape
    assert 0 < (decoded.values.float() - clean.values.float()).abs().mean() < 60
    both = classifier.Pictures.cat([clean, decoded])
    model = classifier.fit(both, len(chars), epochs=25, seed=3, width=8)
    assert classifier.accuracy(model, classifier.rendered(chars, 10, seed=4)) > 0.8


def test_a_classifier_is_read_as_written(tmp_path: Path) -> None:
    model = classifier.network(5).eval()
    classifier.save(model, {"accuracy": 0.987}, tmp_path / "model.safetensors")
    read, facts = classifier.load(5, tmp_path / "model.safetensors")
    pictures = torch.rand((2, 3, 64, 64))
    assert facts == {"accuracy": 0.987}
    same = classifier.probabilities(model, pictures) == classifier.probabilities(read, pictures)
    assert bool(same.all())


def test_an_adapter_changes_what_is_drawn(tools: Tools) -> None:
    plain = draw(tools, "a picture of bomb", 2, seed=5)
    adapted = draw(tools, "a picture of bomb", 2, 5, example("learned-bomb").read(tools.base))
    assert plain.shape == (2, 3, 64, 64)
    assert float(plain.min()) >= -1
    assert float(plain.max()) <= 1
    assert float((plain - adapted).abs().mean()) > 0.05
    assert torch.equal(plain, draw(tools, "a picture of bomb", 2, seed=5))


def test_the_forest_finds_what_an_example_adapter_learned(tools: Tools) -> None:
    paia = Paia(tools, references=12)
    score = paia.prepare(example("learned-bomb", BOMB))
    harmless = paia.prepare(example("harmless-watermelon"))
    assert score(BOMB) == score(BOMB)
    assert score(BOMB) > harmless(BOMB)


def test_an_outlier_scores_above_an_inlier() -> None:
    references = np.random.default_rng(0).normal(size=(40, 10))
    inside, outside = np.zeros(10), np.full(10, -5.0)
    assert outlier_score(references, outside) > outlier_score(references, inside) + 0.1


def test_features_are_of_the_adapter_alone(tools: Tools) -> None:
    bomb, melon = example("learned-bomb"), example("harmless-watermelon")
    for source, size in (
        (WeightStatistics(tools), 20),
        (RandomProjection(tools), 256),
        (GaussianActivations(tools), 3 * (96 + 96 + 48)),
    ):
        first = source.features(bomb)
        assert first.shape == (size,)
        assert np.isfinite(first).all()
        assert np.array_equal(first, source.features(bomb))
        assert not np.allclose(first, source.features(melon))
    assert not GaussianActivations(tools).features(replace(bomb, files=())).any()


def test_the_probe_is_fitted_on_labels() -> None:
    table = np.random.default_rng(1).normal(size=(60, 4))
    labels = table[:, 2] > 0
    scores = linear_probe(table, labels).decision_function(table)
    assert scores[labels].mean() > scores[~labels].mean() + 1


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ({"trained_on": "Jack_o lantern, 20 pictures"}, True),
        ({"ss_output_name": "jack-o-lantern"}, False),
        ({"ss_network_dim": "8"}, False),
    ],
)
def test_metadata_looks_at_values_but_not_at_file_names(
    declared: dict[str, str], found: bool
) -> None:
    assert names(declared, "jack-o-lantern") is found


def test_who_is_asked_what() -> None:
    for entry in entries():
        subject = Subject(entry.name, entry.family, entry.split, entry.learned, ())
        if entry.family == "look-alike":
            assert set(asked(subject)) <= set(concept_ids())
            assert asked(subject)
        elif entry.family == "harmless":
            assert len(set(asked(subject))) == 2
            assert set(asked(subject)) <= {concept_id(char) for char in subjects().test}
        else:
            assert asked(subject) == entry.learned


def test_what_is_scored_is_not_scored_again(tools: Tools) -> None:
    alternative = Alternative("counting", "pair", "nothing", scorer=Counting)
    questions = [Question(example("learned-bomb", BOMB), (BOMB, "unknown", "c-2"))]
    said: list[str] = []
    first = run_pairs(alternative, tools, questions, 0, said.append)
    again = run_pairs(alternative, tools, questions, 0, said.append)
    assert Counting.asked == 2
    assert len(said) == 1
    assert first.rows == again.rows == load(tools.folder / "counting.json").rows
    assert [each.learned for each in first.rows] == [True, False]


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"),
    [(0, 10, 0.0, 0.3085), (10, 10, 0.6915, 1.0), (59, 59, 0.9394, 1.0), (5, 10, 0.1871, 0.8129)],
)
def test_exact_bounds(hits: int, count: int, low: float, high: float) -> None:
    assert clopper_pearson(hits, count) == pytest.approx((low, high), abs=1e-4)


def test_the_threshold_flags_no_more_than_the_rate() -> None:
    negatives = [float(number) for number in range(200)]
    assert sum(score > threshold(negatives) for score in negatives) == 2
    assert threshold([0.0, 1.0]) == 1.0
    assert threshold([0.0] * 300) == 0.0


@pytest.mark.parametrize(
    ("level", "concept", "seconds"), [("pair", "c-1", 33.0), ("adapter", "", 1.0)]
)
def test_figures_of_made_up_scores(
    tmp_path: Path, level: Level, concept: str, seconds: float
) -> None:
    rows = [row("concept", score, concept=concept) for score in (0.2, 0.8, 0.9, 0.95)]
    rows += [row("harmless", score, concept=concept) for score in (0.1, 0.3)]
    rows += [row("dora", 0.31, concept=concept), row("look-alike", 0.3, concept=concept)]
    rows.append(replace(row("concept", 0.0, concept=concept), split="development"))
    Results("made-up", level, "nothing", {}, rows).write(tmp_path)
    (entry,) = summary(tmp_path)
    assert (entry["positives"], entry["negatives"]) == (4, 2)
    assert entry["auroc"] == pytest.approx(7 / 8)
    assert (entry["tpr"], entry["threshold"]) == (0.75, 0.3)
    assert entry["tpr_low"] < 0.75 < entry["tpr_high"]
    assert entry["seconds_per_adapter"] == seconds
    assert entry["families"]["dora"]["rate"] == 1.0
    assert entry["families"]["look-alike"] == {
        **entry["families"]["look-alike"],
        "rate": 0.0,
        "learned": False,
    }


def test_figures_of_adapters_asked_about_everything(tmp_path: Path) -> None:
    own = [row("concept", 0.9), row("harmless", 0.5)]
    others = [replace(own[0], concept=f"c-{n}", learned=False, wide=True) for n in (2, 3)]
    rows = [*own, replace(others[0], score=0.1), replace(others[1], score=0.7)]
    Results("made-up", "pair", "nothing", {}, rows).write(tmp_path)
    (entry,) = summary(tmp_path)
    assert entry["negatives"] == 1
    assert entry["wide"]["named_right"] == 1.0
    assert entry["wide"]["false_alarms"]["rate"] == 0.5


def test_no_figures_without_both_kinds(tmp_path: Path) -> None:
    Results("early", "pair", "nothing", {}, [row("concept", 0.9)]).write(tmp_path)
    (entry,) = summary(tmp_path)
    assert "tpr" not in entry
    assert summary(tmp_path / "missing") == []
