"""The embedded model, library and calibration, and the verdict of the default policy."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch

import loragate_server
from benchmarks.attacks.factors import Shapes, shapes_of
from loragate_server.audit.calibration import load_calibration
from loragate_server.audit.engine import AuditEngine
from loragate_server.audit.evidence import Evidence
from loragate_server.audit.materials import build_materials
from loragate_server.audit.uses import Member
from loragate_server.concepts.gradients import ConceptGradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.models import load_base_model
from loragate_server.models.pipeline import PipelineModel
from loragate_server.policy.decide import decide
from loragate_server.policy.parse import parse_policy
from loragate_server.policy.policy import Policy
from loragate_server.progress import Leash
from loragate_server.testing import SHARED_CACHE

PACKAGE = Path(loragate_server.__file__).parent
EMBEDDED = PACKAGE / "assets" / "emoji_tiny"
EXAMPLES = Path("examples/adapters")


@dataclass(frozen=True)
class Judged:
    """A verdict with the evidence that it rests on."""

    verdict: str
    evidence: Evidence

    @property
    def degree(self) -> float:
        """The highest of any concept; 0 where nothing was measured."""
        return max((one.degree for one in self.evidence.concepts), default=0.0)

    @property
    def score(self) -> float:
        """The highest of any concept; 0 where nothing was measured."""
        return max((one.score for one in self.evidence.concepts), default=0.0)


@dataclass(frozen=True)
class Bench:
    """What ships with the server, put together as the server does it."""

    base: PipelineModel
    engine: AuditEngine
    policy: Policy

    @classmethod
    def load(cls, cache: Path = SHARED_CACHE) -> Bench:
        """On the CPU, as it ships."""
        base = load_base_model(
            EMBEDDED / "pipeline", "emoji-tiny", device="cpu", dtype=torch.float32
        )
        assert isinstance(base, PipelineModel)
        library = ConceptLibrary.open(EMBEDDED / "concepts")
        cache.mkdir(parents=True, exist_ok=True)
        materials = build_materials(library, base, cache)
        made = load_calibration(EMBEDDED / "calibration.json")
        engine = AuditEngine(base, replace(materials, calibration=made))
        policy = parse_policy((PACKAGE / "policy" / "default_policy.yaml").read_bytes())
        return cls(base, engine, policy)

    @cached_property
    def shapes(self) -> Shapes:
        """The layers that an adapter may change."""
        return shapes_of(self.base)

    @property
    def gradients(self) -> ConceptGradients:
        """The concept gradients."""
        assert self.engine.materials.gradients is not None
        return self.engine.materials.gradients

    @property
    def concept_ids(self) -> list[str]:
        """The forbidden concepts, in the order of the screen's arrays."""
        probes = self.engine.probes
        return [one.concept_id for one in probes.concepts[: probes.forbidden_count]]

    def judge(self, members: Sequence[Member]) -> Judged:
        """Audits and decides."""
        evidence = self.engine.audit(
            members, Leash(), screen_miss_rate=self.policy.screen_miss_rate
        )
        return Judged(decide(self.policy, evidence).verdict.value, evidence)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for changed adapters, gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="loragate-attacks-")
