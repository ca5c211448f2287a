"""What each stage of an audit concludes from what it measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from loragate_server.audit.evidence import HeatMap, LayerProfile
from loragate_server.audit.materials import Materials
from loragate_server.audit.passes import KnownLosses, watched_concepts
from loragate_server.audit.profile import HELD_BYTES, Backend
from loragate_server.audit.response import Adaptation, Response, has_words, measure
from loragate_server.audit.score import Scores, against_bank, degree_of
from loragate_server.audit.screen import (
    Screen,
    aims,
    degrees,
    hear,
    heat_map,
    profile,
)
from loragate_server.audit.screening import Screening
from loragate_server.audit.weights import NO_SCALES, Scales
from loragate_server.concepts.gradients import ConceptGradients
from loragate_server.concepts.probes import ProbeSet
from loragate_server.models.base import BaseModel
from loragate_server.progress import Leash


@dataclass(frozen=True)
class Screened:
    """The screen's view of every wanted concept.

    Attributes:
        found: the gains.
        scores: one value per wanted concept.
        degree: the same, 0 to 100.
        screening: the same as scores, aims and the profile of the layers, as plain numbers.
    """

    found: Screen
    gradients: ConceptGradients
    scores: Scores
    degree: Tensor
    screening: Screening

    @classmethod
    def of(
        cls,
        found: Screen,
        gradients: ConceptGradients,
        wanted: Sequence[int],
        scales: Scales = NO_SCALES,
        known: Sequence[int] | None = None,
    ) -> Screened:
        """Scores the gains of the wanted concepts; `known` are those that `profile` is about."""
        heard = hear(found, gradients, wanted, scales)
        screening = Screening(
            heard.scores.score.tolist(),
            aims(found, gradients, wanted).tolist(),
            profile(found, gradients, scales.effects, known),
            [(gained, shared) for gained, shared in heard.named.tolist()],
            [(gained, shared) for gained, shared in heard.bank.tolist()],
            tuple(wanted),
        )
        return cls(found, gradients, heard.scores, degrees(found, gradients, wanted), screening)

    def heat_map(self, concept: int) -> HeatMap | None:
        """Where one concept sits."""
        return heat_map(self.found, self.gradients, concept)


@dataclass(frozen=True)
class Responded:
    """The response stage's view of the concepts that came so far.

    Attributes:
        scores: one value per suspect.
        degree: the same, from the measured errors; 0 to 100.
        change: float64 [suspects, strata], mean log error change.
        strata: name of each stratum: its time, and "named" where rows were told the name.
        layers: layer profile on the top suspect, beside some of the neutral bank.
        doubts: why the numbers cannot vouch; empty when they can.
    """

    scores: Scores
    degree: Tensor
    change: Tensor
    strata: tuple[str, ...]
    layers: tuple[LayerProfile, ...]
    doubts: tuple[tuple[str, str], ...]

    @classmethod
    def of(
        cls, response: Response, sets: Sequence[ProbeSet], suspects: int, watched: int
    ) -> Responded:
        """Reads the response to the generic and the named rows; `watched` as in `measure`."""
        plans = [probes.plan for probes in sets]
        change = mean_change(response, sets)
        named = [plan.named for plan in plans for _ in plan.times]
        strata = tuple(
            f"{time:.2f}{', named' if plan.named else ''}" for plan in plans for time in plan.times
        )
        scores = against_bank(-change, suspects, named)
        excess = change[suspects:].mean(0) - change[:suspects]
        top = int(scores.score.nan_to_num(float("-inf")).argmax())
        return cls(
            scores,
            degree_of(excess.mean(1)),
            change[:suspects],
            strata,
            response.profile.profile(top, slice(suspects, watched)),
            number_doubts(response),
        )

    def error_change(self, suspect: int) -> dict[str, float]:
        """Stratum to the mean relative change of the denoising loss."""
        return {
            name: float(value)
            for name, value in zip(self.strata, self.change[suspect].expm1(), strict=True)
        }


def mean_change(response: Response, sets: Sequence[ProbeSet]) -> Tensor:
    """Mean log error change, float64 [concepts, strata], of a response to the sets of probes."""
    return torch.cat(
        [
            change.reshape(len(change), each.plan.pictures, len(each.plan.times)).mean(1)
            for change, each in zip(response.changes, sets, strict=True)
        ],
        dim=1,
    )


def respond(
    base: BaseModel,
    materials: Materials,
    adaptations: Sequence[Adaptation],
    suspects: Sequence[int],
    *,
    batch_rows: int,
    backend: Backend,
    leash: Leash,
    held_bytes: int = HELD_BYTES,
    known: KnownLosses | None = None,
) -> list[Responded]:
    """Runs the response stage for some forbidden concepts, with the neutral bank beside them.

    An audit and the calibration it is compared with measure through here alike. Where there is a
    new word, no row is told a concept's name: the adapted ones are told the word instead, and the
    base model, which does not know it, the generic prompt.

    Args:
        base: the base model.
        materials: its probes, generic and named.
        adaptations: each is one use of adapters that are active together; all share the base
            rows. One with new words comes alone.
        suspects: indices of the concepts, the same for all; at least one.
        batch_rows: rows per block of a forward pass.
        backend: of the activation statistics.
        leash: polled at every layer; told the stage "response".
        held_bytes: most bytes of activations that wait for their reduction.
        known: what the base model made of the same rows before; grows.

    Raises:
        NoDecisionError: CANCELLED or DEADLINE_EXCEEDED.
    """
    sets = _sets(materials, adaptations[0])
    concepts = torch.tensor([*suspects, *bank_of(materials)], dtype=torch.long)
    watched = watched_concepts(len(suspects), len(concepts), sets[0].plan.rows, batch_rows)
    found = measure(
        base,
        sets,
        concepts,
        adaptations,
        batch_rows=batch_rows,
        backend=backend,
        leash=leash,
        watched=watched,
        held_bytes=held_bytes,
        known=known,
    )
    return [Responded.of(each, sets, len(suspects), watched) for each in found]


def _sets(materials: Materials, adaptation: Adaptation) -> list[ProbeSet]:
    """The sets of probes as they are shown to an adapter."""
    if not has_words(adaptation):
        return list(materials.sets)
    return [replace(each, plan=replace(each.plan, named=False)) for each in materials.sets]


def bank_of(materials: Materials) -> range:
    """The indices of the neutral bank."""
    return range(materials.probes.forbidden_count, len(materials.probes.concepts))


def responses_to(
    base: BaseModel,
    materials: Materials,
    adaptation: Adaptation,
    concepts: Sequence[int],
    *,
    batch_rows: int,
    backend: Backend,
    leash: Leash,
    known: KnownLosses | None = None,
) -> Response:
    """What some concepts' rows say, generic and named; the arguments are those of `respond`.

    No layer is compared.
    """
    [found] = measure(
        base,
        _sets(materials, adaptation),
        torch.tensor(concepts, dtype=torch.long),
        [adaptation],
        batch_rows=batch_rows,
        backend=backend,
        leash=leash,
        known=known,
    )
    return found


def number_doubts(response: Response) -> tuple[tuple[str, str], ...]:
    """Why measured numbers cannot vouch, as (code, sentence); empty when they can."""
    layer = response.profile.nonfinite_layer
    if layer is not None:
        message = f"Activations of layer {layer} are NaN or infinite."
        return (("nonfinite_activations", message),)
    if not all(bool(change.isfinite().all()) for change in response.changes):
        message = "The denoising loss of the adapted model is NaN or infinite."
        return (("nonfinite_loss", message),)
    return ()
