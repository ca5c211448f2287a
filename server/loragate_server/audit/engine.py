"""`AuditEngine`: adapters in, `Evidence` out. Owns no thread and keeps nothing between audits."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy import stats

from loragate_server.audit.batching import exact_batch_rows
from loragate_server.audit.calibration import Gate, final_score
from loragate_server.audit.coverage import coverage_doubts, coverage_evidence
from loragate_server.audit.evidence import (
    ENGINE_VERSION,
    ConceptEvidence,
    Evidence,
    HeatMap,
    LayerProfile,
)
from loragate_server.audit.materials import Materials
from loragate_server.audit.profile import HELD_BYTES, Backend
from loragate_server.audit.response import measure
from loragate_server.audit.screen import screen
from loragate_server.audit.stages import Responded, Screened
from loragate_server.concepts.probes import ProbeSet
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.intake.adapter import Adapter, Strength
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash


@dataclass(frozen=True)
class AuditSettings:
    """How audits are run.

    Attributes:
        batch_rows: probe rows per forward pass at least, before they are doubled. Few rows stay
            in the cache of a CPU and stop soon when the caller goes.
        backend: of the activation statistics; a backend that is missing raises at the first audit.
        held_bytes: most bytes of activations that wait for their reduction. It decides how much
            memory an audit adds and how many launches it makes, and changes no number.
    """

    batch_rows: int = 24
    backend: Backend = "reference"
    held_bytes: int = HELD_BYTES


class AuditEngine:
    """Compares a base model with itself plus adapters, on the probes of one concept library."""

    def __init__(
        self,
        base: BaseModel,
        materials: Materials | ProbeSet,
        settings: AuditSettings | None = None,
    ) -> None:
        if isinstance(materials, ProbeSet):
            materials = Materials(materials)
        for part in (materials.probes, materials.named, materials.gradients):
            if part is not None and part.base_digest != base.digest:
                raise ValueError(
                    f"the probes were built for base {part.base_digest[:12]}, "
                    f"not {base.digest[:12]}"
                )
        self.base = base
        self.materials = materials
        self.probes = materials.probes
        self.settings = settings or AuditSettings()
        self._batch_rows = exact_batch_rows(base, materials.probes, self.settings.batch_rows)
        if materials.calibration is not None:
            materials.calibration.require(materials.binding)

    @property
    def calibrated(self) -> bool:
        """Whether p-values rest on harmless adapters."""
        return self.materials.calibration is not None

    def audit(
        self,
        adapters: Sequence[tuple[Adapter, Strength]],
        leash: Leash,
        concept_ids: Sequence[str] = (),
        *,
        screen_miss_rate: float = 0.01,
    ) -> Evidence:
        """Audits adapters that will be active together.

        Adapters that intake did not fully understand, or that change no layer, are not measured:
        numbers about a part of a file say nothing about the file.

        Args:
            adapters: each with the strength it will be used at; at least one.
            leash: deadline, cancellation and progress.
            concept_ids: forbidden concepts to look for; all when empty.
            screen_miss_rate: share of learned concepts that the screen may let through unseen by
                the response stage. Used with a calibration alone.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, CANCELLED or DEADLINE_EXCEEDED.
        """
        wanted = self._wanted(concept_ids)
        doubts = coverage_doubts(adapters)
        if doubts:
            return self._evidence(adapters, doubts=doubts)
        times_s: dict[str, float] = {}
        calibration = self.materials.calibration
        gate = None if calibration is None else calibration.at(screen_miss_rate)
        screened = self._screen(adapters, wanted, leash, times_s)
        if screened is not None and not bool(screened.found.gain.isfinite().all()):
            doubts = (("nonfinite_weights", "A weight of the adapter is NaN or infinite."),)
            return self._evidence(adapters, doubts=doubts, times_s=times_s)
        suspects = _suspects(screened, gate, len(wanted))
        responded = None
        if suspects:
            responded = self._respond(adapters, [wanted[i] for i in suspects], leash, times_s)
            if doubts := responded.doubts:
                return self._evidence(adapters, doubts=doubts, times_s=times_s)
        concepts = self._conclude(wanted, suspects, screened, responded, gate)
        top = max(range(len(concepts)), key=lambda row: concepts[row].score)
        return self._evidence(
            adapters,
            concepts=concepts,
            layers=() if responded is None else responded.layers,
            times_s=times_s,
            heat=None if screened is None else screened.heat_map(wanted[top]),
        )

    def _wanted(self, concept_ids: Sequence[str]) -> list[int]:
        forbidden = self.probes.concepts[: self.probes.forbidden_count]
        if not concept_ids:
            return list(range(len(forbidden)))
        index = {concept.concept_id: position for position, concept in enumerate(forbidden)}
        for concept_id in concept_ids:
            if concept_id not in index:
                raise NoDecisionError(
                    ErrorReason.CONCEPT_UNKNOWN,
                    f"No forbidden concept {concept_id!r} is in the library.",
                    remedy="List the concepts and use one of their ids.",
                    metadata={"concept_id": concept_id},
                )
        return sorted({index[concept_id] for concept_id in concept_ids})

    def _screen(
        self,
        adapters: Sequence[tuple[Adapter, Strength]],
        wanted: Sequence[int],
        leash: Leash,
        times_s: dict[str, float],
    ) -> Screened | None:
        gradients = self.materials.gradients
        if gradients is None:
            return None
        leash.check()
        leash.report("screen", 0.0)
        began = time.monotonic()
        found = screen(self.base, gradients, adapters, self.settings.backend)
        calibration = self.materials.calibration
        weights = None if calibration is None else calibration.weights
        made = Screened.of(found, gradients, wanted, weights)
        times_s["screen"] = time.monotonic() - began
        leash.report("screen", 1.0)
        return made

    def _respond(
        self,
        adapters: Sequence[tuple[Adapter, Strength]],
        suspects: Sequence[int],
        leash: Leash,
        times_s: dict[str, float],
    ) -> Responded:
        began = time.monotonic()
        bank = torch.arange(self.probes.forbidden_count, len(self.probes.concepts))
        concepts = torch.cat([torch.tensor(suspects, dtype=torch.long), bank])
        sets = [each for each in (self.probes, self.materials.named) if each is not None]
        responses = [
            measure(
                self.base,
                probes,
                concepts,
                [adapters],
                batch_rows=self._batch_rows,
                backend=self.settings.backend,
                leash=leash,
                held_bytes=self.settings.held_bytes,
            )[0]
            for probes in sets
        ]
        times_s["response"] = time.monotonic() - began
        return Responded.of(responses, sets, len(suspects))

    def _conclude(
        self,
        wanted: Sequence[int],
        suspects: Sequence[int],
        screened: Screened | None,
        responded: Responded | None,
        gate: Gate | None,
    ) -> tuple[ConceptEvidence, ...]:
        looked = {row: position for position, row in enumerate(suspects)}
        found = []
        for row, index in enumerate(wanted):
            concept, position = self.probes.concepts[index], looked.get(row)
            second = None
            if responded is not None and position is not None:
                second = float(responded.scores.score[position])
            first = None if screened is None else float(screened.scores.score[row])
            score = final_score(first, second) if first is not None else second or 0.0
            approximate = screened if second is None else responded
            assert approximate is not None  # noqa: S101 - one of the stages looked at it
            tail = float(approximate.scores.p_value[row if second is None else position])
            if first is not None and second is not None:
                tail = self._student_tail(score)
            found.append(
                ConceptEvidence(
                    concept_id=concept.concept_id,
                    concept_name=concept.name,
                    category=concept.category,
                    severity=concept.severity,
                    score=score,
                    p_value=tail if gate is None else gate.p_value(concept.concept_id, score),
                    degree=self._degree(row, position, screened, responded),
                    error_change_by_time=(
                        {}
                        if responded is None or position is None
                        else responded.error_change(position)
                    ),
                    family_p_value=None if gate is None else gate.family_p_value(score),
                    screen_score=first,
                    stage="screen" if second is None else "response",
                )
            )
        return tuple(found)

    def _student_tail(self, score: float) -> float:
        return float(stats.t.sf(score, df=self.probes.neutral_count - 1))

    @staticmethod
    def _degree(
        row: int, position: int | None, screened: Screened | None, responded: Responded | None
    ) -> float:
        if screened is not None:
            return float(screened.degree[row])
        assert responded is not None and position is not None  # noqa: S101, PT018
        return float(responded.degree[position])

    def _evidence(
        self,
        adapters: Sequence[tuple[Adapter, Strength]],
        *,
        concepts: tuple[ConceptEvidence, ...] = (),
        layers: tuple[LayerProfile, ...] = (),
        doubts: tuple[tuple[str, str], ...] = (),
        times_s: Mapping[str, float] | None = None,
        heat: HeatMap | None = None,
    ) -> Evidence:
        calibration = self.materials.calibration
        return Evidence(
            adapters=tuple(coverage_evidence(adapter, strength) for adapter, strength in adapters),
            concepts=concepts,
            layers=layers,
            inconclusive=doubts,
            base_model=self.base.name,
            base_digest=self.base.digest,
            library_digest=self.probes.library_digest,
            kernel_backend=self.settings.backend,
            engine_version=ENGINE_VERSION,
            neutral_count=self.probes.neutral_count,
            stage_times_s=dict(times_s or {"response": 0.0}),
            heat_map=heat,
            calibration_digest="" if calibration is None else calibration.digest,
            calibration_size=0 if calibration is None else len(calibration.harmless),
        )


def _suspects(screened: Screened | None, gate: Gate | None, count: int) -> list[int]:
    """Rows of the wanted concepts that go on to the response stage."""
    if screened is None or gate is None or not screened.found.complete:
        return list(range(count))
    return [row for row in range(count) if float(screened.scores.score[row]) >= gate.threshold]
