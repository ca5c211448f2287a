"""The lean way on the embedded base model: what the screen says of the example adapters."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from loragate_server.adapter.reference import StoredFile
from loragate_server.audit.screen import screen_each
from loragate_server.concepts.building.sketch import Widths, is_whole
from loragate_server.concepts.building.stratum import layers_of
from loragate_server.concepts.gradients import GradientPlan, LeanPlan, assemble, compute
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan, build_probes
from loragate_server.config.schema import EMBEDDED_LIBRARY, EMBEDDED_PIPELINE
from loragate_server.intake.reader import read_adapter
from loragate_server.models import load_base_model

ADAPTERS = Path(__file__).parents[3] / "examples" / "adapters"
PROBES = ProbePlan(pictures=3, times=(0.3,), neutral=8, named=True)
WIDTHS = Widths(24, 64)
"""At the default ones most layers of so small a model are held in whole."""
APART = 0.05
"""How far a concept's gain may be from the dense one, in standard deviations over the concepts."""

pytestmark = pytest.mark.filterwarnings("ignore:.*torch_dtype.*:FutureWarning")


def test_the_screen_says_the_same_of_every_example(tmp_path: Path) -> None:
    base = load_base_model(EMBEDDED_PIPELINE, "emoji-tiny")
    library = _few(ConceptLibrary.open(EMBEDDED_LIBRARY))
    probes = [build_probes(library, base, tmp_path, plan=PROBES)]
    adapters = []
    for file in sorted(ADAPTERS.glob("*.safetensors")):
        data = file.read_bytes()
        stored = StoredFile(hashlib.sha256(data).hexdigest(), len(data), file)
        adapters.append(read_adapter(stored, base).adapters[0])
    assert sum(not is_whole(layer, WIDTHS) for layer in layers_of(base).values()) > 90
    gains = []
    for plan in (GradientPlan((PROBES,)), LeanPlan((PROBES,), widths=WIDTHS)):
        made = assemble(base, probes, plan, compute(base, probes, plan))
        found = screen_each(base, made, adapters, "reference")
        gains.append(torch.stack([one.gain.sum(dim=(0, 2)) for one in found]))
    dense, lean = gains
    spread = dense.std(dim=1, keepdim=True)
    assert ((lean - dense) / spread).abs().max() < APART
    assert torch.equal(dense.argmax(dim=1), lean.argmax(dim=1))


def _few(library: ConceptLibrary) -> ConceptLibrary:
    """What the examples have learned, and eight neutral concepts to compare with."""
    learned = {file.stem.removeprefix("learned-") for file in ADAPTERS.glob("learned-*")}
    forbidden = tuple(one for one in library.forbidden if one.concept_id in learned)
    assert len(forbidden) > 1
    return replace(library, concepts=(*forbidden, *library.neutral[:8]))
