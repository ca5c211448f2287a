"""From error changes to scores: each forbidden concept against the neutral bank, same adapter.

An adapter that has learned a concept lowers the denoising loss on that concept's pictures more than
on unrelated ones. Over-training, strength and style move all concepts together, so the bank on the
same adapter is the yardstick, not a fixed threshold on the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """One value per forbidden concept, float64.

    Attributes:
        score: standard deviations above the bank, averaged over time strata.
        p_value: one-sided.
        degree: 0 to 100.
    """

    score: Tensor
    p_value: Tensor
    degree: Tensor


_FLOOR = 1e-6
"""Smallest spread that counts: below it the adapter changes nothing that could be compared."""


def log_error_change(base_loss: Tensor, adapted_loss: Tensor) -> Tensor:
    """log(adapted / base) of the per-row denoising loss; 0.0 exactly where the two are equal.

    A conditional calibrated error in the sense of PAIA (arXiv 2504.14815), relative instead of
    absolute so that easy and hard pictures weigh alike.
    """
    change = adapted_loss.double().log() - base_loss.double().log()
    return torch.where(adapted_loss == base_loss, torch.zeros_like(change), change)


def against_bank(gain: Tensor, forbidden_count: int) -> Scores:
    """Scores the leading `forbidden_count` concepts against the rest.

    Args:
        gain: float64 [concepts, strata], minus the mean log error change.
        forbidden_count: forbidden concepts come first; the others are the neutral bank.

    The score is the Student prediction statistic of one new observation against n bank members,
    `(g - mean) / (s sqrt(1 + 1/n))`, on the gains averaged over strata after each stratum was
    scaled by the bank's spread; its p-value has n - 1 degrees of freedom.
    """
    bank = gain[forbidden_count:]
    count = bank.shape[0]
    scaled = (gain - bank.mean(0)) / bank.std(0).clamp_min(_FLOOR)
    combined = scaled.mean(1)
    reference = combined[forbidden_count:]
    spread = reference.std().clamp_min(_FLOOR) * (1 + 1 / count) ** 0.5
    score = (combined[:forbidden_count] - reference.mean()) / spread
    p_value = torch.from_numpy(stats.t.sf(score.numpy(), df=count - 1))
    excess = (gain[:forbidden_count] - bank.mean(0)).mean(1)
    degree = 100 * (1 - torch.exp(-excess.clamp_min(0)))
    return Scores(score, p_value, degree)
