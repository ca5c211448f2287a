"""Generate pictures with the adapter and classify them: what most people would do first."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.audit.alternatives import classifier
from benchmarks.audit.alternatives.classifier import Pictures
from benchmarks.audit.alternatives.tools import (
    Adapters,
    Tools,
    concept_ids,
    denoiser_with,
    text_with,
)
from benchmarks.audit.derive import Subject
from benchmarks.audit.subjects import subjects
from emoji_tiny.catalogue import name_of
from emoji_tiny.render import SIZE

PICTURES = 20
STEPS = 20
GUIDANCE = 3.0
SEED = 77


def draw(tools: Tools, prompt: str, count: int, seed: int, adapters: Adapters = ()) -> Tensor:
    """Pictures float32 [count, 3, 64, 64] in [-1, 1], drawn by the pipeline itself."""
    noise = torch.randn((count, 4, 16, 16), generator=torch.Generator().manual_seed(seed))
    # guided: the pipeline runs every picture twice, without and with its prompt
    with denoiser_with(tools.base, adapters, 2 * count), text_with(tools.base, adapters):
        shown: Tensor = tools.base.pipeline(
            [prompt] * count,
            height=SIZE,
            width=SIZE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            latents=noise,
            output_type="pt",
        ).images
    return shown * 2 - 1


def _of_the_base(tools: Tools, copies: int, label: int) -> Pictures:
    """What the base makes of the concepts' names: the class "none of these".

    Without it a classifier must call a failed picture something, and sometimes calls it by the
    very name in the prompt.
    """
    parts = []
    for number, char in enumerate(subjects().concepts):
        shown = draw(tools, f"a picture of {name_of(char)}", copies, 1000 + number)
        parts.append(((shown + 1) * 127.5).round().to(torch.uint8))
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
    """Score: mean probability of the concept over the pictures drawn with its own prompt."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._index = {one: number for number, one in enumerate(concept_ids())}
        file = tools.folder / "classifier.safetensors"
        count = len(classifier.classes()) + 1
        if not file.exists():
            model, facts = train_classifier(tools)
            classifier.save(model, facts, file)
        self._model, self.facts = classifier.load(count, file)

    def knows(self, concept: str) -> bool:
        """Only what the classifier was trained on."""
        return concept in self._index

    def warm(self, concept: str) -> None:
        """Nothing depends on the concept alone."""

    def prepare(self, subject: Subject) -> Callable[[str], float]:
        """Loads the adapter."""
        adapters = subject.read(self._tools.base)
        return lambda concept: self._score(adapters, concept)

    def _score(self, adapters: Adapters, concept: str) -> float:
        prompt = self._tools.by_id[concept].prompts[0]
        shown = draw(self._tools, prompt, PICTURES, SEED, adapters)
        chances = classifier.probabilities(self._model, shown)
        return float(chances[:, self._index[concept]].mean())
