"""Makes gradients one concept after another, the way that the plan says, where there is room."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from loragate_server.concepts.building import dense, lean
from loragate_server.concepts.building.memory.kept import kept_bytes
from loragate_server.concepts.building.memory.need import (
    Need,
    Shapes,
    dense_need,
    directions_bytes,
    lean_need,
    needed_bytes,
)
from loragate_server.concepts.building.memory.room import free_bytes
from loragate_server.concepts.building.stratum import Rows
from loragate_server.concepts.plan import GradientPlan, LeanPlan
from loragate_server.concepts.probes import ProbeSet
from loragate_server.config.gradients import GradientsSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.models.base import BaseModel
from loragate_server.out_of_memory import is_out_of_memory
from loragate_server.progress import Turns

_GB = 1e9

Predicted = TypeVar("Predicted")
_log = logging.getLogger(__name__)


class Builder:
    """Gradients of the concepts of some probes on one base model.

    Args:
        base: the base model.
        probes: one set per plan of probes.
        settings: which way, and how much memory.
        turns: when the base model is free.
        plan: the default plan, its kind chosen by the settings, when None.
        folder: where it is kept what the kind is chosen by; not at all when None.
    """

    def __init__(
        self,
        base: BaseModel,
        probes: Sequence[ProbeSet],
        settings: GradientsSection,
        turns: Turns,
        plan: GradientPlan | None = None,
        folder: Path | None = None,
    ) -> None:
        self._base = base
        self._folder = folder
        self._probes = probes
        self._settings = settings
        self._turns = turns
        self.plan = plan or self._chosen()
        self._at_once = 0
        self._leave = False

    def make(self, concept: int) -> dict[str, Tensor]:
        """The gradients of one concept, by its number; see `compute`.

        Raises:
            NoDecisionError: OUT_OF_MEMORY before anything is made where the predicted peak does not
                fit, or when it was wrong; AUDIT_FAILED for a gradient that is not finite.
        """
        if not self._at_once:
            self._start()
        parts: dict[str, list[Tensor]] = {}
        for each in self._probes:
            for level in range(len(each.plan.times)):
                for name, tensor in self._piece(each, concept, level).items():
                    parts.setdefault(name, []).append(tensor)
        return {name: torch.cat(tensors) for name, tensors in parts.items()}

    def _start(self) -> None:
        """Settles how many rows go at once, and says what that takes."""
        need = self._foretold(self.fitting)
        if need is None:
            self._at_once = min(self._settings.rows_at_once, self._rows)
            return
        self._at_once, self._leave = need.rows, need.away
        _log.info(
            "gradients on %s: the %s way, %d rows at once%s, at most %s",
            self._base.name,
            "lean" if isinstance(self.plan, LeanPlan) else "dense",
            need.rows,
            ", text encoders away meanwhile" if need.away else "",
            _gigabytes(needed_bytes(need, self._base.device)),
        )

    def needs(self) -> tuple[Need, ...]:
        """What could be done, the fastest first: its memory, predicted."""
        if isinstance(self.plan, LeanPlan):
            counts = range(min(self._settings.rows_at_once, self._rows), 0, -1)
            here = [self._lean(rows) for rows in counts]
            if self._base.device.type == "cpu":
                return tuple(here)
            # to and fro costs more time than smaller micro-batches
            beside = self._shapes.beside
            return (*here, *(replace(n, passes=n.passes - beside, away=True) for n in here))
        return (dense_need(self._shapes),)

    def fitting(self) -> Need:
        """The fastest that fits.

        Raises:
            NoDecisionError: OUT_OF_MEMORY; none does. It says how much is needed, and for what.
        """
        room = self.room()
        for need in (found := self.needs()):
            if room is None or needed_bytes(need, self._base.device) <= room:
                return need
        raise self._too_large(found[-1], room or 0)

    def room(self) -> int | None:
        """Bytes that base model and work may take together; None where nobody can tell."""
        free = free_bytes(self._base.device)
        there = None if free is None else free + self._shapes.weights
        limit = self._settings.memory_bytes
        return min(limit, there or limit) if limit else there

    def _piece(self, probes: ProbeSet, concept: int, level: int) -> dict[str, Tensor]:
        def piece() -> dict[str, Tensor]:
            rows = Rows.of(probes, concept, level)
            if isinstance(self.plan, LeanPlan):
                rank, widths = self.plan.rank, self.plan.widths
                return lean.of_rows(
                    self._base, rows, rank, widths, self._at_once, leave=self._leave
                )
            return dense.of_rows(self._base, rows, self.plan.rank)

        while True:
            try:
                return self._turns(piece)
            except NoDecisionError as error:
                halves = isinstance(self.plan, LeanPlan) and self._at_once > 1
                if error.reason is not ErrorReason.OUT_OF_MEMORY or not halves:
                    raise
            self._at_once //= 2
            _log.warning(
                "gradients on %s: there was less memory than predicted; %d rows at once from here",
                self._base.name,
                self._at_once,
            )

    def _chosen(self) -> GradientPlan:
        kind = self._settings.kind
        if kind == "auto":
            limit = self._settings.dense_bytes
            self.plan = GradientPlan()  # whose number of gradients the shapes are about
            peak = self._foretold(self._dense_peak)
            kind = "dense" if peak is None or peak <= limit else "lean"
        return GradientPlan() if kind == "dense" else LeanPlan()

    def _dense_peak(self) -> int:
        """Bytes without what is kept: one concept more must not change the kind."""

        def predict() -> int:
            return dense_need(replace(self._shapes, directions=0)).peak

        if self._folder is None:
            return predict()
        base, first = self._base, self._probes[0]
        weight = next(base.denoiser.parameters())
        model = (base.digest, str(weight.dtype), base.device.type)
        work = (str(tuple(first.noisy.shape[2:])), str(self._rows))
        return kept_bytes(self._folder, "need", (*model, *work), predict)

    def _foretold(self, predict: Callable[[], Predicted]) -> Predicted | None:
        """A prediction; None, with a warning, for a model that does not run on `meta`.

        It is built as if nothing were known of it: the dense way, unless the lean one is set.
        """
        try:
            return predict()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            _log.warning(
                "gradients on %s: nobody can tell what memory they take, as the model does not run "
                "without numbers (%s)",
                self._base.name,
                str(error).strip().splitlines()[0],
            )
            return None

    @property
    def _rows(self) -> int:
        return max(each.plan.pictures for each in self._probes)

    @cached_property
    def _shapes(self) -> Shapes:
        count = len(self._probes[0].concepts) * sum(len(each.plan.times) for each in self._probes)
        latent = tuple(self._probes[0].noisy.shape[2:])
        base, rank = self._base, self.plan.rank
        kept = directions_bytes(base, rank, count)
        return self._turns(lambda: Shapes.of(base, latent, self._rows, kept))

    @cached_property
    def _slope(self) -> tuple[Need, Need]:
        assert isinstance(self.plan, LeanPlan)  # noqa: S101 - asked of no other
        one, two = (lean_need(self._shapes, self.plan.widths, rows) for rows in (1, 2))
        return one, two

    def _lean(self, rows: int) -> Need:
        """Every row more takes as much as the second one does."""
        one, two = self._slope
        passes = one.passes + (rows - 1) * (two.passes - one.passes)
        return replace(one, passes=passes, rows=rows)

    def _too_large(self, need: Need, room: int) -> NoDecisionError:
        base = self._base
        wanted = needed_bytes(need, base.device)
        there = need.weights - (self._shapes.beside if need.away else 0)
        lean_too = not isinstance(self.plan, LeanPlan)
        remedies = [
            "set `gradients.kind: lean`" if lean_too else "",
            "set `dtype: bfloat16` for it" if _element_bytes(base) > 2 else "",
            "choose a device with more memory, or end what else uses it",
        ]
        return NoDecisionError(
            ErrorReason.OUT_OF_MEMORY,
            f"The gradients of {len(self._probes[0].concepts)} concepts on base model {base.name} "
            f"need {_gigabytes(wanted)} of {base.device} at their peak, and {_gigabytes(room)} are "
            f"there: {_gigabytes(there)} are weights that stay there meanwhile, "
            f"{_gigabytes(need.passes - there)} the work, "
            f"{_gigabytes(need.after - need.weights)} what is kept.",
            remedy=_sentence(", or ".join(one for one in remedies if one)),
            metadata={"needed_bytes": str(wanted), "free_bytes": str(room)},
        )


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _element_bytes(base: BaseModel) -> int:
    return next(base.denoiser.parameters()).element_size()


def _gigabytes(count: int) -> str:
    return f"{count / _GB:.1f} GB"
