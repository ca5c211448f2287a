"""Generate pictures with the adapter and classify them: what most people would do first."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property

import torch
from torch import nn

from benchmarks.audit.alternatives import classifier
from benchmarks.audit.alternatives.classifier import Pictures
from benchmarks.audit.alternatives.drawing import PICTURES, SEED, as_bytes, draw, prompt_of
from benchmarks.audit.alternatives.kinds import KindClassifier, looks
from benchmarks.audit.alternatives.tools import Adapters, Tools, concept_ids
from benchmarks.audit.derive import Subject
from benchmarks.audit.subjects import subjects


def _of_the_base(tools: Tools, copies: int, label: int) -> Pictures:
    """What the base makes of the concepts' names: the class "none of these".

    Without it a classifier must call a failed picture something, and sometimes calls it by the
    very name in the prompt.
    """
    parts = []
    for number, char in enumerate(subjects().concepts):
        parts.append(as_bytes(draw(tools, [prompt_of(char)] * copies, 1000 + number)))
    values = torch.cat(parts)
    return Pictures(values, torch.full((len(values),), label))


def train_classifier(
    tools: Tools, *, copies: int = 48, epochs: float = 6.0, drawn: int = 8
) -> tuple[nn.Sequential, dict[str, float]]:
    """Trains and examines the classifier; returns it with its figures on held-out renders."""
    began = time.monotonic()
    chars, concepts = classifier.classes(), len(concept_ids())
    clean = classifier.rendered(chars, copies, seed=1)
    parts = [clean, classifier.through_decoder(tools.base, clean, 0.5, seed=2)]
    if drawn:
        parts += [_of_the_base(tools, drawn, len(chars))] * 4
    model = classifier.fit(Pictures.cat(parts), len(chars) + 1, epochs, seed=3)
    held_out = classifier.rendered(chars, max(1, copies // 6), seed=4)
    decoded = classifier.through_decoder(tools.base, held_out, 0.0, seed=5)
    facts = {
        "classes": float(len(chars) + 1),
        "accuracy_clean": classifier.accuracy(model, held_out),
        "accuracy_clean_concepts": classifier.accuracy(model, held_out, concepts),
        "accuracy_decoded": classifier.accuracy(model, decoded),
        "accuracy_decoded_concepts": classifier.accuracy(model, decoded, concepts),
        "training_s": time.monotonic() - began,
    }
    return model, facts


class GenerateAndClassify:
    """Score: mean probability of the concept over the pictures drawn with its own prompt.

    Kinds, styles and what the base knows are left to the classifier that has classes for them.
    """

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._index = {one: number for number, one in enumerate(concept_ids())}
        file = tools.folder / "classifier.safetensors"
        count = len(classifier.classes()) + 1
        if not file.exists():
            model, facts = train_classifier(tools)
            classifier.save(model, facts, file)
        self._model, self.facts = classifier.load(count, file)

    @cached_property
    def _kinds(self) -> KindClassifier:
        kinds = KindClassifier(self._tools)
        self.facts |= kinds.facts
        return kinds

    def knows(self, concept: str) -> bool:
        """Only what one of the classifiers was trained on."""
        return concept in self._index or concept in looks()

    def warm(self, concept: str) -> None:
        """Trains the classifier of kinds before the first adapter needs it."""
        if concept in looks():
            _ = self._kinds

    def prepare(self, subject: Subject) -> Callable[[str], float]:
        """Loads the adapter."""
        adapters = subject.read(self._tools.base)
        return lambda concept: self._score(adapters, concept)

    def _score(self, adapters: Adapters, concept: str) -> float:
        if concept in looks():
            return self._kinds.score(adapters, concept)
        prompt = self._tools.by_id[concept].prompts[0]
        shown = draw(self._tools, [prompt] * PICTURES, SEED, adapters)
        chances = classifier.probabilities(self._model, shown)
        return float(chances[:, self._index[concept]].mean())
