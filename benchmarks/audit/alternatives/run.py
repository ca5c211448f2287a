"""Runs one alternative over the zoo; what is in its file already is not measured again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.audit.alternatives.plan import Question
from benchmarks.audit.alternatives.registry import Alternative
from benchmarks.audit.alternatives.results import Results, Row
from benchmarks.audit.alternatives.tools import Tools
from benchmarks.audit.derive import Subject

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Clock:
    wall: float
    cpu: float

    @classmethod
    def now(cls) -> _Clock:
        return cls(time.monotonic(), time.process_time())

    def since(self) -> tuple[float, float]:
        return time.monotonic() - self.wall, time.process_time() - self.cpu


def run_pairs(
    alternative: Alternative, tools: Tools, asked: Sequence[Question], limit: int, say: Say
) -> Results:
    """Scores every pair that has no score yet, of `limit` adapters at most (0: all)."""
    assert alternative.scorer is not None
    results = _opened(alternative, tools)
    scorer = alternative.scorer(tools)
    todo = []
    for question in asked:
        concepts = [c for c in question.concepts if scorer.knows(c)]
        missing = [c for c in concepts if not results.has(question.subject.name, c)]
        if missing:
            todo.append((question, missing))
    began = time.monotonic()
    for done, (question, missing) in enumerate(todo[: limit or None], 1):
        for concept in missing:
            scorer.warm(concept)
        subject, clock = question.subject, _Clock.now()
        score = scorer.prepare(subject)
        shared = clock.since()
        for concept in missing:
            clock = _Clock.now()
            value = score(concept)
            learned = concept in subject.learned
            results.rows.append(
                _row(subject, concept, learned, value, shared, clock.since(), question.wide)
            )
        results.facts |= scorer.facts
        results.write(tools.folder)
        say(f"{alternative.name} {done}/{len(todo)} {_left(began, done, len(todo))}{subject.name}")
    results.facts |= scorer.facts
    results.write(tools.folder)
    return results


def run_adapters(
    alternative: Alternative,
    tools: Tools,
    subjects: Sequence[Subject],
    chosen: Sequence[Subject],
    limit: int,
    say: Say,
) -> Results:
    """Features of the chosen adapters, then a probe fitted on those of the development split.

    All `subjects` that have features get a score, those of earlier runs as well.
    """
    assert alternative.features is not None
    source = alternative.features(tools)
    kept = tools.folder / alternative.name
    kept.mkdir(parents=True, exist_ok=True)
    todo = [each for each in chosen if not (kept / f"{each.name}.npz").exists()]
    began = time.monotonic()
    for done, subject in enumerate(todo[: limit or None], 1):
        clock = _Clock.now()
        features = source.features(subject)
        np.savez(kept / f"{subject.name}.npz", features=features, seconds=clock.since())
        if done % 20 == 0:
            left = _left(began, done, len(todo))
            say(f"{alternative.name} {done}/{len(todo)} {left}{subject.name}")
    measured = [each for each in subjects if (kept / f"{each.name}.npz").exists()]
    results = Results(alternative.name, alternative.level, alternative.needs)
    if any(each.split == "development" for each in measured):
        _score_adapters(results, measured, tools)
    results.write(tools.folder)
    return results


def _score_adapters(results: Results, measured: Sequence[Subject], tools: Tools) -> None:
    tables, times = [], []
    for subject in measured:
        with np.load(tools.folder / results.name / f"{subject.name}.npz") as loaded:
            tables.append(loaded["features"])
            times.append((float(loaded["seconds"][0]), float(loaded["seconds"][1])))
    table = np.stack(tables)
    fitted = np.array([each.split == "development" for each in measured])
    labels = np.array([bool(each.learned) for each in measured])
    probe = linear_probe(table[fitted], labels[fitted])
    scores = probe.decision_function(table)
    results.facts = {
        "development_concept": float((fitted & labels).sum()),
        "development_harmless": float((fitted & ~labels).sum()),
    }
    for subject, score, seconds in zip(measured, scores, times, strict=True):
        learned = bool(subject.learned)
        results.rows.append(
            _row(subject, "", learned, float(score), seconds, (0.0, 0.0), wide=False)
        )


def linear_probe(table: np.ndarray, labels: np.ndarray) -> Pipeline:
    """Logistic regression; its penalty is chosen by cross-validation."""
    folds = int(min(5, labels.sum(), (~labels).sum()))
    model = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=np.logspace(-4, 2, 10),
            cv=folds,
            scoring="roc_auc",
            l1_ratios=(0.0,),
            class_weight="balanced",
            max_iter=2000,
            use_legacy_attributes=False,
        ),
    )
    model.fit(table, labels)
    return model


def _opened(alternative: Alternative, tools: Tools) -> Results:
    return Results.open(tools.folder, alternative.name, alternative.level, alternative.needs)


def _left(began: float, done: int, total: int) -> str:
    left_s = (time.monotonic() - began) / done * (total - done)
    return f"({left_s / 60:.0f} min left) "


def _row(
    subject: Subject,
    concept: str,
    learned: bool,
    score: float,
    shared: tuple[float, float],
    own: tuple[float, float],
    wide: bool,
) -> Row:
    return Row(
        subject=subject.name,
        family=subject.family,
        split=subject.split,
        concept=concept,
        learned=learned,
        score=score,
        shared_s=round(shared[0], 4),
        seconds=round(own[0], 4),
        shared_cpu_s=round(shared[1], 4),
        cpu_s=round(own[1], 4),
        wide=wide,
    )
