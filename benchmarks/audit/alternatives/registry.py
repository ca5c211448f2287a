"""The alternatives: what each needs, and whether it can name a concept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.audit.alternatives.gaussian import GaussianActivations
from benchmarks.audit.alternatives.generate import GenerateAndClassify
from benchmarks.audit.alternatives.metadata import Metadata
from benchmarks.audit.alternatives.paia import Paia
from benchmarks.audit.alternatives.results import Level
from benchmarks.audit.alternatives.tools import Tools
from benchmarks.audit.alternatives.weights import RandomProjection, WeightStatistics
from benchmarks.audit.derive import Subject


class PairScorer(Protocol):
    """An alternative that says something about a given concept."""

    facts: dict[str, float]

    def knows(self, concept: str) -> bool:
        """Whether it can be asked about this concept."""
        ...

    def warm(self, concept: str) -> None:
        """Does what depends on the concept alone, so that no adapter is charged for it."""
        ...

    def prepare(self, subject: Subject) -> Callable[[str], float]:
        """Does what all concepts share; gives the function from concept to score."""
        ...


class AdapterFeatures(Protocol):
    """An alternative that learns from labelled adapters what a forbidden one looks like."""

    def features(self, subject: Subject) -> np.ndarray:
        """One vector per adapter."""
        ...


@dataclass(frozen=True)
class Alternative:
    """One alternative; exactly one of `scorer` and `features` is set.

    Attributes:
        needs: what a user must have before the first adapter.
    """

    name: str
    level: Level
    needs: str
    scorer: Callable[[Tools], PairScorer] | None = None
    features: Callable[[Tools], AdapterFeatures] | None = None


_LABELLED = "labelled adapters of the same base model, concept and harmless"

ALTERNATIVES = (
    Alternative(
        "metadata", "pair", "concept names; an uploader who tells the truth", scorer=Metadata
    ),
    Alternative("weight_statistics", "adapter", _LABELLED, features=WeightStatistics),
    Alternative("random_projection", "adapter", _LABELLED, features=RandomProjection),
    Alternative("gaussian_activations", "adapter", _LABELLED, features=GaussianActivations),
    Alternative(
        "paia", "pair", "base model, 5 pictures per concept, 40 unrelated pictures", scorer=Paia
    ),
    Alternative(
        "generate_and_classify",
        "pair",
        "base model, the concept's prompt, a classifier trained on pictures of every concept",
        scorer=GenerateAndClassify,
    ),
)


def named(name: str) -> Alternative:
    """The alternative of this name.

    Raises:
        KeyError: there is none.
    """
    return {each.name: each for each in ALTERNATIVES}[name]
