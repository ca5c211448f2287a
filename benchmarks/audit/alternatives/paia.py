"""PAIA (arXiv 2504.14815) as far as it can be rebuilt: calibrated error and an isolation forest.

Per adapter the late timesteps alone, the change of the denoising error on pictures of the concept
with its prompt, and the same on unrelated pictures with a generic prompt. The concept is reported
when its vector of changes is an outlier among the unrelated ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from sklearn.ensemble import IsolationForest
from torch import Tensor

from benchmarks.audit.alternatives.tools import Adapters, Tools, denoiser_with, text_with
from benchmarks.audit.derive import Subject
from emoji_tiny.render import GENERIC_PROMPT
from loragate_server.concepts.pictures import load_pictures
from loragate_server.models.base import per_row_loss

TIMES = tuple((1 + 40 * step) / 1000 for step in range(10))
"""Every second one of the last 20 of 50 steps: where, says the paper, the prompt matters little."""
PICTURES = 5
REFERENCES = 40
ROWS = 50
CONTAMINATION = 0.1
SEED = 504


class Samples:
    """Noised pictures with one prompt, and the base model's error on them.

    The noise is drawn once, so base and adapted model, and all adapters, see the same rows.
    """

    def __init__(self, tools: Tools, pictures: Tensor, prompt: str, seed: int) -> None:
        self._base, self._prompt = tools.base, prompt
        with torch.inference_mode():
            latents = tools.base.encode_pictures(pictures).repeat_interleave(len(TIMES), dim=0)
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
            self._times = torch.tensor(TIMES).repeat(len(pictures))
            self._noisy = tools.base.add_noise(latents, noise, self._times)
            self._target = tools.base.target(latents, noise, self._times)
        self._before = self._errors(())

    def change(self, adapters: Adapters) -> np.ndarray:
        """Adapted minus base error, float64 [pictures, timesteps]."""
        change = self._errors(adapters) - self._before
        return change.reshape(-1, len(TIMES)).double().numpy()

    def _errors(self, adapters: Adapters) -> Tensor:
        losses = []
        with torch.inference_mode():
            with text_with(self._base, adapters):
                told = self._base.encode_prompts([self._prompt])
            for rows in torch.arange(len(self._noisy)).split(ROWS):
                conditioning = told.rows(torch.zeros_like(rows))
                with denoiser_with(self._base, adapters, len(rows)):
                    found = self._base.denoise(self._noisy[rows], self._times[rows], conditioning)
                losses.append(per_row_loss(found, self._target[rows]))
        return torch.cat(losses)


def outlier_score(references: np.ndarray, target: np.ndarray) -> float:
    """How far `target` [timesteps] is from `references` [n, timesteps]; more is further."""
    forest = IsolationForest(contamination=CONTAMINATION, random_state=0)
    return -float(forest.fit(references).score_samples(target[None])[0])


class Paia:
    """Score: minus the forest's score of the mean vector over the concept's pictures."""

    def __init__(self, tools: Tools, references: int = REFERENCES) -> None:
        self._tools = tools
        self._samples: dict[str, Samples] = {}
        neutral = tools.library.neutral[:references]
        pictures = [load_pictures(each, tools.base.picture_size, 1) for each in neutral]
        self._references = Samples(tools, torch.cat(pictures), GENERIC_PROMPT, SEED)
        self.facts: dict[str, float] = {"references": float(len(neutral))}

    def knows(self, concept: str) -> bool:
        """Everything that the library has pictures of."""
        return concept in self._tools.by_id

    def prepare(self, subject: Subject) -> Callable[[str], float]:
        """Runs the unrelated pictures, which all concepts share."""
        adapters = subject.read(self._tools.base)
        references = self._references.change(adapters)

        def score(concept: str) -> float:
            change = self._of(concept).change(adapters)
            return outlier_score(references, change.mean(axis=0))

        return score

    def warm(self, concept: str) -> None:
        """Has the base model's error on the concept's pictures ready."""
        self._of(concept)

    def _of(self, concept: str) -> Samples:
        if concept not in self._samples:
            known = self._tools.by_id[concept]
            pictures = load_pictures(known, self._tools.base.picture_size, PICTURES)
            self._samples[concept] = Samples(self._tools, pictures, known.prompts[0], SEED + 1)
        return self._samples[concept]
