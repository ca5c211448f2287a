"""`AuditEngine`: adapters in, `Evidence` out.

Owns no thread, and keeps nothing of adapters between audits. Belongs to one thread at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from loragate_server.audit.batching import exact_batch_rows
from loragate_server.audit.coverage import coverage_evidence, reading_doubts
from loragate_server.audit.evidence import ENGINE_VERSION, Evidence, Machine
from loragate_server.audit.gravest import gravest_concepts
from loragate_server.audit.judge import Judge, Judged
from loragate_server.audit.machine import digest_of, machine_of
from loragate_server.audit.materials import Materials
from loragate_server.audit.profile import HELD_BYTES, Backend
from loragate_server.audit.recall import Fed, Recalled, Recollection, fed_of, usable
from loragate_server.audit.uses import MOST_USES, Member, TooManyUsesError, Use, uses_of
from loragate_server.concepts.library import concept_unknown
from loragate_server.concepts.probes import ProbeSet
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash


@dataclass(frozen=True)
class AuditSettings:
    """How audits are run.

    Attributes:
        batch_rows: probe rows per block at least; a forward pass has two. Few rows stay
            in the cache of a CPU and stop soon when the caller goes.
        backend: of the activation statistics; a backend that is missing raises at the first audit.
        held_bytes: most bytes of activations that wait for their reduction. It decides how much
            memory an audit adds and how many launches it makes, and changes no number.
    """

    batch_rows: int = 24
    backend: Backend = "reference"
    held_bytes: int = HELD_BYTES


@dataclass(frozen=True)
class _Plan:
    """The uses of one question, and what reading left open."""

    uses: tuple[Use, ...]
    doubts: tuple[tuple[str, str], ...]


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
        block = exact_batch_rows(base, materials.probes, self.settings.batch_rows)
        self._batch_rows = block.rows
        self._materials_digest = digest_of(materials)
        self.judge = Judge(
            base,
            materials,
            block=block,
            backend=self.settings.backend,
            held_bytes=self.settings.held_bytes,
        )
        if materials.calibration is not None:
            materials.calibration.require(materials.binding)

    @property
    def machine(self) -> Machine:
        """What an audit runs on now."""
        return machine_of(self.base, self._materials_digest, self._batch_rows)

    @property
    def calibrated(self) -> bool:
        """Whether p-values rest on harmless adapters."""
        return self.materials.calibration is not None

    @property
    def looks_first(self) -> bool:
        """Whether `first_look` tells some questions from others."""
        return self.materials.gradients is not None

    @property
    def knows_sizes(self) -> bool:
        """Whether `first_look` can begin at once."""
        return self.judge.knows_sizes

    def try_sizes(self) -> None:
        """Finds out how many questions may share a launch in `first_look`, which takes a second."""
        self.judge.try_sizes()

    def try_sizes_of_many(self) -> None:
        """Finds out how many questions may share a launch in `audit_many`, which takes seconds."""
        self.judge.try_sizes_of_many()

    @cached_property
    def fed(self) -> Fed:
        """What the response stage is fed; named once."""
        return fed_of(self.base, self.materials)

    def audit(
        self,
        members: Sequence[Member],
        leash: Leash,
        concept_ids: Sequence[str] = (),
        *,
        screen_miss_rate: float = 0.01,
    ) -> Evidence:
        """Audits adapters that may be active together: each alone, and all that can be at once.

        Per concept the gravest use stands, and a use that cannot be measured leaves its doubt. So
        no adapter is better off in company than alone, and none hides behind a loader that reads
        it otherwise.

        Args:
            members: what may be loaded; at least one.
            leash: deadline, cancellation and progress.
            concept_ids: forbidden concepts to look for; all when empty.
            screen_miss_rate: share of learned concepts that the screen may let through unseen by
                the response stage. Used with a calibration alone.

        Raises:
            NoDecisionError: CONCEPT_UNKNOWN, CANCELLED or DEADLINE_EXCEEDED.
        """
        wanted = self._wanted(concept_ids)
        plan = self._plan(members)
        # One after the other: whoever runs this may let others pass between two of them.
        judged = [
            self.judge.judge(use.adaptation, wanted, leash, screen_miss_rate) for use in plan.uses
        ]
        return self._evidence(members, plan.uses, judged, plan.doubts)

    def audit_many(
        self,
        questions: Sequence[Sequence[Member]],
        leash: Leash,
        concept_ids: Sequence[str] = (),
        *,
        screen_miss_rate: float = 0.01,
        recalled: Sequence[Recalled | None] = (),
    ) -> list[Evidence]:
        """Audits several questions at once; each gets the evidence of `audit`, to the last bit.

        Screens share launches and suspects share forward passes, so that hundreds of questions
        cost less than one after the other (`together`). Only what the stages took is told
        otherwise: what several shared is divided among them.

        Args:
            questions: what may be loaded together, of each at least one member.
            leash: of all of them.
            concept_ids: as for `audit`.
            screen_miss_rate: as for `audit`.
            recalled: by question what was measured before of its one member at full strength, for
                none or for all. The response stage does not run again where it would give the same.

        Raises:
            NoDecisionError: as `audit`; none of the questions has evidence then.
        """
        wanted = self._wanted(concept_ids)
        plans = [self._plan(members) for members in questions]
        given = recalled or [None] * len(plans)
        judged = iter(
            self.judge.judge_many(
                [use.adaptation for plan in plans for use in plan.uses],
                wanted,
                leash,
                screen_miss_rate,
                [
                    self._recollection(one) if len(plan.uses) == 1 else None
                    for plan, one in zip(plans, given, strict=True)
                    for _ in plan.uses
                ],
            )
        )
        return [
            self._evidence(members, plan.uses, [next(judged) for _ in plan.uses], plan.doubts)
            for members, plan in zip(questions, plans, strict=True)
        ]

    def first_look(
        self,
        questions: Sequence[Sequence[Member]],
        leash: Leash,
        concept_ids: Sequence[str] = (),
        *,
        screen_miss_rate: float = 0.01,
    ) -> list[Evidence | None]:
        """As `audit_many` of the questions that need no response stage; None for the others.

        Raises:
            NoDecisionError: as `audit_many`.
        """
        wanted = self._wanted(concept_ids)
        plans = [self._plan(members) for members in questions]
        uses = [use.adaptation for plan in plans for use in plan.uses]
        judged = iter(self.judge.first_look(uses, wanted, leash, screen_miss_rate))
        found: list[Evidence | None] = []
        for members, plan in zip(questions, plans, strict=True):
            each = [next(judged) for _ in plan.uses]
            told = [one for one in each if one is not None]
            whole = len(told) == len(each)
            found.append(self._evidence(members, plan.uses, told, plan.doubts) if whole else None)
        return found

    def _recollection(self, recalled: Recalled | None) -> Recollection | None:
        if recalled is None or not usable(
            recalled, self.base, self.settings.backend, self.machine, self.fed
        ):
            return None
        # Of what no calibration speaks for the response's own p-value counts, which no record has.
        alone = set(self.materials.uncalibrated)
        rows = ["" if name in alone else one for name, one in self.fed.concepts.items()]
        return Recollection(recalled, rows, self.base.denoiser_component)

    @staticmethod
    def _plan(members: Sequence[Member]) -> _Plan:
        doubts = reading_doubts(members)
        try:
            return _Plan(uses_of(members), doubts)
        except TooManyUsesError:
            sentence = (
                f"The adapters can be used in more than {MOST_USES} ways (each with or without the "
                "others, at each strength, as each loader reads it); ask about fewer at once."
            )
            return _Plan((), (*doubts, ("too_many_uses", sentence)))

    def _wanted(self, concept_ids: Sequence[str]) -> list[int]:
        forbidden = self.probes.concepts[: self.probes.forbidden_count]
        if not concept_ids:
            return list(range(len(forbidden)))
        index = {concept.concept_id: position for position, concept in enumerate(forbidden)}
        for concept_id in concept_ids:
            if concept_id not in index:
                raise concept_unknown(concept_id, "forbidden concept")
        return sorted({index[concept_id] for concept_id in concept_ids})

    def _evidence(
        self,
        members: Sequence[Member],
        uses: Sequence[Use],
        judged: Sequence[Judged],
        doubts: tuple[tuple[str, str], ...],
    ) -> Evidence:
        calibration = self.materials.calibration
        concepts = gravest_concepts([one.concepts for one in judged])
        shown = Judged()
        if concepts:
            shown = judged[max(concepts, key=lambda concept: concept.score).use]
        times_s: Counter[str] = Counter()
        for one in judged:
            times_s.update(one.times_s)
        unusual = [one.likeness_p_value for one in judged]
        every = (*doubts, *(doubt for one in judged for doubt in one.doubts))
        return Evidence(
            adapters=tuple(coverage_evidence(member) for member in members),
            concepts=concepts,
            layers=shown.layers,
            inconclusive=tuple(dict.fromkeys(every)),
            base_model=self.base.name,
            base_digest=self.base.digest,
            library_digest=self.probes.library_digest,
            kernel_backend=self.settings.backend,
            engine_version=ENGINE_VERSION,
            neutral_count=self.probes.neutral_count,
            stage_times_s=dict(times_s) or {"response": 0.0},
            heat_map=shown.heat,
            calibration_digest="" if calibration is None else calibration.digest,
            calibration_size=0 if calibration is None else len(calibration.harmless),
            uses=tuple(use.evidence for use in uses),
            likeness_p_value=min((p for p in unusual if p is not None), default=None),
            loaders=tuple(dict.fromkeys(name for use in uses for name in use.loaders)),
            machine=self.machine,
        )
