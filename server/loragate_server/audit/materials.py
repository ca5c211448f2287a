"""What an engine compares adapters with: probes, gradients and the calibration."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from loragate_server.audit.calibration import Binding, Calibration
from loragate_server.audit.evidence import MEASURED_AS
from loragate_server.concepts.concept import Concept
from loragate_server.concepts.gradients import ConceptGradients, GradientPlan, build_gradients
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.probes import ProbePlan, ProbeSet, build_probes
from loragate_server.config.gradients import GradientsSection
from loragate_server.models.base import BaseModel
from loragate_server.progress import Report, Turns, at_once, silent

GENERIC = ProbePlan(pictures=2, times=(0.16, 0.75))
"""Rows under the generic prompt: what an adapter does whatever it is asked for."""

NAMED = ProbePlan(pictures=2, times=(0.3,), named=True)
"""Rows under the concept's own name: what it shows only to those who ask."""


@dataclass(frozen=True)
class Materials:
    """What an engine compares adapters with, all of one base model and library.

    Attributes:
        probes: rows under the generic prompt; their bank is the yardstick of the response stage.
        named: the same concepts under their own names; None leaves these rows out.
        gradients: for the screen; None leaves the screen out.
        calibration: scores of harmless adapters; None: p-values are approximate and nothing ends
            at the screen.
        dtype: what the base model computes in; empty: unknown.
        picture_size: as in `Binding`.
    """

    probes: ProbeSet
    named: ProbeSet | None = None
    gradients: ConceptGradients | None = None
    calibration: Calibration | None = None
    dtype: str = ""
    picture_size: str = ""

    @property
    def sets(self) -> tuple[ProbeSet, ...]:
        """The probes that there are: generic, then named."""
        return tuple(each for each in (self.probes, self.named) if each is not None)

    @property
    def forbidden(self) -> tuple[Concept, ...]:
        """The forbidden concepts, in the order of the screen's and the response stage's rows."""
        return self.probes.concepts[: self.probes.forbidden_count]

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """The forbidden concepts that no calibration speaks for, by id."""
        known = set() if self.calibration is None else set(self.calibration.harmless[0].screen)
        every = (one.concept_id for one in self.forbidden)
        return tuple(concept_id for concept_id in every if concept_id not in known)

    def shown(self, concept: Concept) -> str:
        """Names what is measured of a concept: two with equal names measure the same."""
        return hashlib.sha256(concept.shown(self._pictures).encode()).hexdigest()

    @property
    def bank(self) -> str:
        """Names the neutral concepts that everything is compared with, as `shown` does for one."""
        banks = [self.probes.concepts[self.probes.forbidden_count :]]
        if self.gradients is not None:
            banks.append(self.gradients.concepts[self.gradients.forbidden_count :])
        named = [[self.shown(concept) for concept in bank] for bank in banks]
        return hashlib.sha256(repr(named).encode()).hexdigest()

    @property
    def _pictures(self) -> int:
        plans = [self.probes.plan, *(self.gradients.plan.plans if self.gradients else ())]
        return max(plan.pictures for plan in plans)

    @property
    def binding(self) -> Binding:
        """What a calibration for these materials has to be bound to."""
        plans = repr(
            (
                self.probes.plan,
                self.named and self.named.plan,
                self.gradients and self.gradients.plan,
            )
        )
        return Binding(
            MEASURED_AS,
            self.probes.base_digest,
            self.probes.library_digest,
            hashlib.sha256(plans.encode()).hexdigest(),
            self.dtype,
            self.picture_size,
        )


def build_materials(
    library: ConceptLibrary,
    base: BaseModel,
    cache_dir: Path,
    report: Report = silent,
    *,
    gradients: GradientPlan | None = None,
    turns: Turns = at_once,
    settings: GradientsSection | None = None,
) -> Materials:
    """Builds probes and gradients, concept by concept, or reads them; without a calibration.

    Args:
        library: the open concept library.
        base: the base model.
        cache_dir: where they are kept.
        report: told what is being made.
        gradients: the default plan when None.
        turns: when the base model is free.
        settings: which way gradients are made, and in how much memory.

    Raises:
        NoDecisionError: CONCEPT_PICTURES_INVALID; DISK_FULL when the cache cannot be written; what
            `build_gradients` raises.
    """
    height, width = base.picture_size
    return Materials(
        build_probes(library, base, cache_dir, report, GENERIC, turns),
        build_probes(library, base, cache_dir, report, NAMED, turns),
        build_gradients(library, base, cache_dir, report, gradients, turns, settings),
        dtype=str(next(base.denoiser.parameters()).dtype).removeprefix("torch."),
        picture_size="" if base.is_own_size else f"{width}x{height}",
    )
