"""What every alternative needs: the base model, the concepts, and adapters applied to the base."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from benchmarks.audit.library import FOLDER as LIBRARY
from benchmarks.audit.library import build_library
from benchmarks.audit.subjects import subjects
from benchmarks.audit.train import PIPELINE
from benchmarks.audit.zoo import concept_id
from loragate_server.adapter.adapter import Adapter
from loragate_server.adapter.reference import Strength
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.models import load_base_model
from loragate_server.models.apply import RowPlan, adapted_rows, adapted_text
from loragate_server.models.pipeline import PipelineModel

FOLDER = Path("build/alternatives")

Adapters = Sequence[tuple[Adapter, Strength]]
"""Adapters that are loaded together, each at its strength."""


@dataclass(frozen=True)
class Tools:
    """Made once and shared by all alternatives.

    Attributes:
        folder: results, and what an alternative keeps for the next run.
        library_folder: the concepts; built when missing.
    """

    base: PipelineModel
    folder: Path = FOLDER
    library_folder: Path = LIBRARY

    @classmethod
    def load(cls, folder: Path = FOLDER, library_folder: Path = LIBRARY) -> Tools:
        """The embedded base model on the CPU."""
        base = load_base_model(PIPELINE, "emoji-tiny", device="cpu", dtype=torch.float32)
        assert isinstance(base, PipelineModel)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(base, folder, library_folder)

    @cached_property
    def library(self) -> ConceptLibrary:
        """The library that loragate is given in the same study."""
        if not self.library_folder.exists():
            build_library(self.library_folder)
        return ConceptLibrary.open(self.library_folder)

    @cached_property
    def by_id(self) -> dict[str, Concept]:
        """Every concept of the library."""
        return {concept.concept_id: concept for concept in self.library.concepts}


def concept_ids() -> tuple[str, ...]:
    """The 64 concepts of the study."""
    return tuple(concept_id(char) for char in subjects().concepts)


@contextmanager
def denoiser_with(base: PipelineModel, adapters: Adapters, rows: int) -> Iterator[None]:
    """Inside it, the first `rows` rows of every batch go through the adapted denoiser."""
    plans = [RowPlan(slice(0, rows), adapter.deltas, strength) for adapter, strength in adapters]
    with adapted_rows(base, plans):
        yield


@contextmanager
def text_with(base: PipelineModel, adapters: Adapters) -> Iterator[None]:
    """Inside it, prompts go through the adapted text encoder."""
    with ExitStack() as stack:
        for adapter, strength in adapters:
            stack.enter_context(adapted_text(base, adapter.deltas, strength))
        yield
