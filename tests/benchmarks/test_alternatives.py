"""The alternatives: that each measures what it says, and that the figures are counted right."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.audit.alternatives import classifier, kinds
from benchmarks.audit.alternatives.drawing import PICTURES, as_bytes, draw
from benchmarks.audit.alternatives.gaussian import GaussianActivations
from benchmarks.audit.alternatives.generate import GenerateAndClassify
from benchmarks.audit.alternatives.learned import (
    learned_by_generation,
    shown_concepts,
    write_learned,
)
from benchmarks.audit.alternatives.metadata import names
from benchmarks.audit.alternatives.paia import Paia, outlier_score
from benchmarks.audit.alternatives.plan import (
    Question,
    also_asked,
    asked,
    extra_concepts,
)
from benchmarks.audit.alternatives.registry import ALTERNATIVES, Alternative, named
from benchmarks.audit.alternatives.results import Level, Results, Row, load
from benchmarks.audit.alternatives.run import linear_probe, run_pairs
from benchmarks.audit.alternatives.summary import summary
from benchmarks.audit.alternatives.thresholds import Thresholds
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


def test_a_kind_is_looked_for_in_pictures_of_its_members() -> None:
    learned, others = kinds.looks()["kind-books"], kinds.looks()["group-books"]
    assert len(learned.classes) == 8
    assert len(others.classes) == 4
    assert not {*learned.classes} & {*others.classes}
    assert "a picture of ledger" in learned.prompts
    assert "a picture of open book" in {*learned.prompts, *others.prompts}
    for look in kinds.looks().values():
        assert len(look.prompts) == PICTURES
        assert max(look.classes) < kinds.COUNT - 1


def test_a_small_classifier_learns_styles_whatever_they_show() -> None:
    first = kinds.style_class("gray")

    def shown(chars: tuple[str, ...], copies: int) -> classifier.Pictures:
        made = kinds.in_every_style(classifier.rendered(chars, copies, seed=6).values)
        return classifier.Pictures(made.values, made.labels - first)

    assert kinds.style_class("sepia") == kinds.style_class("plain") == kinds.COUNT - 1
    model = classifier.fit(shown(subjects().concepts[:8], 4), 4, epochs=20, seed=7, width=8)
    assert classifier.accuracy(model, shown(subjects().concepts[8:12], 3)) > 0.8


def test_kinds_are_left_to_their_own_classifier(
    tools: Tools, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both untrained: only who is asked, and which probabilities are added up, matters here."""
    torch.manual_seed(8)
    first, second = (
        classifier.network(len(classifier.classes()) + 1),
        classifier.network(kinds.COUNT),
    )
    classifier.save(first, {"of": 1.0}, tools.folder / "classifier.safetensors")
    classifier.save(second, {"kinds_of": 2.0}, tools.folder / "kinds.safetensors")
    scorer = GenerateAndClassify(tools)
    assert all(map(scorer.knows, (*concept_ids(), *extra_concepts())))
    assert not scorer.knows("neutral-1f4a9")
    assert scorer.facts == {"of": 1.0}
    scorer.warm("kind-trains")
    assert scorer.facts == {"of": 1.0, "kinds_of": 2.0}
    look = kinds.looks()["kind-trains"]
    look = replace(look, prompts=look.prompts[:2])
    monkeypatch.setattr(kinds, "looks", lambda: {"kind-trains": look})
    adapters = example("learned-bomb").read(tools.base)
    chances = classifier.probabilities(second.eval(), draw(tools, look.prompts, 77, adapters))
    expected = float(chances[:, list(look.classes)].sum(1).mean())
    assert scorer.prepare(example("learned-bomb"))("kind-trains") == pytest.approx(expected)


def test_an_adapter_changes_what_is_drawn(tools: Tools) -> None:
    prompts = ["a picture of bomb"] * 2
    plain = draw(tools, prompts, seed=5)
    adapted = draw(tools, prompts, 5, example("learned-bomb").read(tools.base))
    assert plain.shape == (2, 3, 64, 64)
    assert float(plain.min()) >= -1
    assert float(plain.max()) <= 1
    assert float((plain - adapted).abs().mean()) > 0.05
    assert torch.equal(plain, draw(tools, prompts, seed=5))
    assert float((as_bytes(plain) / 127.5 - 1 - plain).abs().max()) < 0.005


def test_the_forest_finds_what_an_example_adapter_learned(tools: Tools) -> None:
    paia = Paia(tools, references=8)
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


def test_extra_concepts_are_asked_of_harmless_adapters_equally_often() -> None:
    asked_of = {entry.name: also_asked(entry.name) for entry in entries()}
    times = Counter(concept for concepts in asked_of.values() for concept in concepts)
    assert set(times) == set(extra_concepts()) == set(kinds.looks())
    assert max(times.values()) - min(times.values()) <= 1
    for name, concepts in asked_of.items():
        assert not concepts or name.startswith("harmless-t")
        assert len(set(concepts)) == len(concepts)


def test_a_threshold_starts_from_the_level_of_its_concept() -> None:
    """What harmless adapters show of a kind anyway is no sign of having learned it."""
    rows = [row("harmless", score / 100) for score in range(100)]
    for concept, level in (("kind-books", 2.0), ("kind-trains", 1.0), ("kind-hearts", 0.1)):
        rows += [row("harmless", level + step, concept=concept) for step in (-0.1, 0.0, 0.1)]
    rows.append(row("harmless", 3.0, concept="style-gray"))
    found = Thresholds.of(rows)
    assert found is not None
    assert found.limit("c-1") == found.core == 0.98
    assert found.limit("kind-books") == pytest.approx(2.15)
    assert found.limit("kind-trains") == pytest.approx(1.15)
    assert found.limit("kind-hearts") == found.core
    assert found.limit("style-gray") is None
    assert Thresholds.of(rows[100:]) is None


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


def test_what_pictures_show_is_told_by_adapter_and_by_concept(tmp_path: Path) -> None:
    negatives = [row("harmless", 0.1 + n / 1000, concept="c-9") for n in range(100)]
    for concept in ("kind-books", "group-books"):
        negatives += [row("harmless", score, concept=concept) for score in (0.0, 0.01)]
    group = replace(row("group", 0.9, concept="kind-books"), subject="group-0")
    both = replace(row("two-concepts", 0.9, concept="c-1"), subject="both")
    judged = [
        *negatives,
        group,
        replace(group, concept="group-books", score=0.0),
        both,
        replace(both, concept="c-2", score=0.0),
        replace(row("look-alike", 0.9), subject="alike"),
    ]
    unseen = replace(row("dora", 0.3), subject="unseen")
    Results("generate_and_classify", "pair", "nothing", {}, judged).write(tmp_path)
    Results("a-floor", "pair", "nothing", {}, [*negatives, group, unseen]).write(tmp_path)
    assert learned_by_generation(tmp_path) == {"group-0": True, "both": False, "unseen": None}
    assert {(one.case, one.shown) for one in shown_concepts(tmp_path)} == {
        ("group", True),
        ("group-other-members", False),
        ("two-concepts", True),
        ("two-concepts", False),
        ("dora", None),
    }
    told = json.loads(write_learned(tmp_path).read_text())
    assert len(told) == 5
    assert [entry["name"] for entry in summary(tmp_path)] == ["a-floor", "generate_and_classify"]


def test_hits_are_counted_among_what_pictures_show(tmp_path: Path) -> None:
    negatives = [row("harmless", 0.1), row("harmless", 0.2)]
    shown, hidden = (replace(row("dora", 0.9), subject=name) for name in ("shown", "hidden"))
    fair = [*negatives, row("concept", 0.9)]
    judged = [*fair, shown, replace(hidden, score=0.0)]
    Results("generate_and_classify", "pair", "nothing", {}, judged).write(tmp_path)
    other = [*fair, replace(shown, score=0.0), hidden]
    Results("other", "pair", "nothing", {}, other).write(tmp_path)
    by_name = {entry["name"]: entry["families"]["dora"] for entry in summary(tmp_path)}
    assert by_name["generate_and_classify"]["shown"] == {"n": 1, "hits": 1}
    assert by_name["other"]["shown"] == {"n": 1, "hits": 0}
    assert by_name["other"]["rate"] == 0.5
