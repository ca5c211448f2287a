"""`AuditEngine`: adapters in, `Evidence` out. Owns no thread and keeps nothing between audits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from loragate_server.audit.batching import exact_batch_rows
from loragate_server.audit.evidence import (
    ENGINE_VERSION,
    ConceptEvidence,
    CoverageEvidence,
    Evidence,
    LayerProfile,
)
from loragate_server.audit.profile import HELD_BYTES, Backend
from loragate_server.audit.response import Response, measure
from loragate_server.audit.score import against_bank
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
        self, base: BaseModel, probes: ProbeSet, settings: AuditSettings | None = None
    ) -> None:
        if probes.base_digest != base.digest:
            raise ValueError(
                f"the probes were built for base {probes.base_digest[:12]}, not {base.digest[:12]}"
            )
        self.base = base
        self.probes = probes
        self.settings = settings or AuditSettings()
        self._batch_rows = exact_batch_rows(base, probes, self.settings.batch_rows)

    def audit(
        self,
        adapters: Sequence[tuple[Adapter, Strength]],
        leash: Leash,
        concept_ids: Sequence[str] = (),
    ) -> Evidence:
        """Audits adapters that will be active together.

        Adapters that intake did not fully understand, or that change no layer, are not measured:
        numbers about a part of a file say nothing about the file.

        Args:
            adapters: each with the strength it will be used at; at least one.
            leash: deadline, cancellation and progress.
            concept_ids: forbidden concepts to look for; all when empty.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, CANCELLED or DEADLINE_EXCEEDED.
        """
        wanted = self._wanted(concept_ids)
        doubts = _coverage_doubts(adapters)
        if doubts:
            return self._evidence(adapters, (), (), doubts, 0.0)
        began = time.monotonic()
        bank = torch.arange(self.probes.forbidden_count, len(self.probes.concepts))
        [response] = measure(
            self.base,
            self.probes,
            torch.cat([torch.tensor(wanted), bank]),
            [adapters],
            batch_rows=self._batch_rows,
            backend=self.settings.backend,
            leash=leash,
            held_bytes=self.settings.held_bytes,
        )
        elapsed_s = time.monotonic() - began
        doubts = _number_doubts(response)
        if doubts:
            return self._evidence(adapters, (), (), doubts, elapsed_s)
        concepts, layers = self._interpret(response, wanted)
        return self._evidence(adapters, concepts, layers, (), elapsed_s)

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

    def _interpret(
        self, response: Response, wanted: Sequence[int]
    ) -> tuple[tuple[ConceptEvidence, ...], tuple[LayerProfile, ...]]:
        plan = self.probes.plan
        by_time = response.change.reshape(
            len(response.change), plan.pictures, len(plan.times)
        ).mean(1)
        scores = against_bank(-by_time, len(wanted))
        concepts = tuple(
            ConceptEvidence(
                concept_id=concept.concept_id,
                concept_name=concept.name,
                category=concept.category,
                severity=concept.severity,
                score=float(scores.score[row]),
                p_value=float(scores.p_value[row]),
                degree=float(scores.degree[row]),
                error_change_by_time={
                    f"{level:.2f}": float(by_time[row, stratum].expm1())
                    for stratum, level in enumerate(plan.times)
                },
            )
            for row, concept in enumerate(self.probes.concepts[position] for position in wanted)
        )
        top = int(scores.score.argmax())
        return concepts, response.profile.profile(top, slice(len(wanted), None))

    def _evidence(
        self,
        adapters: Sequence[tuple[Adapter, Strength]],
        concepts: tuple[ConceptEvidence, ...],
        layers: tuple[LayerProfile, ...],
        doubts: tuple[tuple[str, str], ...],
        response_s: float,
    ) -> Evidence:
        return Evidence(
            adapters=tuple(_coverage(adapter, strength) for adapter, strength in adapters),
            concepts=concepts,
            layers=layers,
            inconclusive=doubts,
            base_model=self.base.name,
            base_digest=self.base.digest,
            library_digest=self.probes.library_digest,
            kernel_backend=self.settings.backend,
            engine_version=ENGINE_VERSION,
            neutral_count=self.probes.neutral_count,
            stage_times_s={"response": response_s},
        )


def _coverage(adapter: Adapter, strength: Strength) -> CoverageEvidence:
    coverage = adapter.coverage
    return CoverageEvidence(
        sha256=adapter.sha256,
        size_bytes=adapter.size_bytes,
        format=adapter.format,
        denoiser_strength=strength.denoiser,
        text_encoder_strength=strength.text_encoder,
        weight_tensors=coverage.weight_tensors,
        mapped_tensors=coverage.mapped_tensors,
        matched_modules=coverage.matched_modules,
        unmapped=coverage.unmapped,
    )


def _coverage_doubts(
    adapters: Sequence[tuple[Adapter, Strength]],
) -> tuple[tuple[str, str], ...]:
    doubts = []
    for adapter, _ in adapters:
        coverage, short = adapter.coverage, adapter.sha256[:12]
        if coverage.matched_modules == 0:
            doubts.append(
                (
                    "no_matching_layers",
                    f"Adapter {short} changes no layer of this base model; it was made for another "
                    "one, or its key names are not understood.",
                )
            )
        elif coverage.unmapped:
            names = ", ".join(coverage.unmapped[:3])
            doubts.append(
                (
                    "unmapped_keys",
                    f"Adapter {short} has {len(coverage.unmapped)} weight tensors that match no "
                    f"layer of this base model, for example {names}; another loader may use them.",
                )
            )
    return tuple(doubts)


def _number_doubts(response: Response) -> tuple[tuple[str, str], ...]:
    layer = response.profile.nonfinite_layer
    if layer is not None:
        return (("nonfinite_activations", f"Activations of layer {layer} are NaN or infinite."),)
    if not bool(response.change.isfinite().all()):
        return (("nonfinite_loss", "The denoising loss of the adapted model is NaN or infinite."),)
    return ()
