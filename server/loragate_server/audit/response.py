"""The response stage: base and adapted model on the same probe rows, in the same batch.

Rows of the base model come first, then the same rows once more for every adaptation. The deltas
are added to the adapted rows only, so an adapter without effect changes nothing at all: its error
change is exactly 0.0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor

from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.delta import WeightDelta
from loragate_server.adapter.reference import Strength
from loragate_server.audit.profile import HELD_BYTES, Backend, ProfileCollector
from loragate_server.audit.score import log_error_change
from loragate_server.concepts.probes import ProbeSet, encode_probe_prompts, prompt_rows
from loragate_server.models.apply import RowPlan, adapted_rows, adapted_text
from loragate_server.models.base import BaseModel, Conditioning, per_row_loss
from loragate_server.models.words import encode_words
from loragate_server.progress import Leash

Adaptation = Sequence[tuple[Adapter, Strength]]
"""Adapters that will be active together, each at its strength."""


def has_words(adaptation: Adaptation) -> bool:
    """Whether a new word is part of it."""
    return any(adapter.words for adapter, _ in adaptation)


@dataclass(frozen=True)
class Response:
    """What one adaptation did to the probes.

    Attributes:
        change: float64 [concepts, rows], log(adapted / base) of the denoising loss.
        profile: layer statistics of the same forward passes.
    """

    change: Tensor
    profile: ProfileCollector


def measure(
    base: BaseModel,
    probes: ProbeSet,
    concepts: Tensor,
    adaptations: Sequence[Adaptation],
    *,
    batch_rows: int,
    backend: Backend,
    leash: Leash,
    held_bytes: int = HELD_BYTES,
) -> list[Response]:
    """Runs the paired forward passes of several adaptations at once.

    Args:
        base: the base model.
        probes: its probes.
        concepts: int64 [k], indices into `probes.concepts` to run.
        adaptations: each is audited as one; all share the base rows. One with new words wants
            probes whose plan is not `named`.
        batch_rows: base rows per forward pass; the batch is `1 + len(adaptations)` times as large.
            The last pass is filled up to it, because rows are only comparable at one batch size
            (see `batching`).
        backend: of the activation statistics.
        leash: polled at every layer; told the stage "response", and given turns between passes.
        held_bytes: most bytes of activations that wait for their reduction, per adaptation.

    Raises:
        NoDecisionError: CANCELLED or DEADLINE_EXCEEDED.
    """
    told = [encode_probe_prompts(base, probes, concepts)]
    told += [_adapted_prompt(base, probes, each, concepts) for each in adaptations]
    noisy = probes.noisy[concepts].flatten(0, 1)
    target = probes.target[concepts].flatten(0, 1)
    times = probes.times.repeat(len(concepts))
    owner = torch.arange(len(concepts)).repeat_interleave(probes.plan.rows)
    told_rows = prompt_rows(probes, concepts).repeat_interleave(probes.plan.rows).to(base.device)
    collectors = [
        ProfileCollector(base.denoiser, len(concepts), backend, leash, held_bytes)
        for _ in adaptations
    ]
    changes: list[list[Tensor]] = [[] for _ in adaptations]
    for start in range(0, len(noisy), batch_rows):
        leash.check()
        leash.report("response", start / len(noisy))
        leash.turn()
        index = torch.arange(start, start + batch_rows) % len(noisy)
        count = min(batch_rows, len(noisy) - start)
        losses = _paired_losses(
            base,
            noisy[index],
            target[index],
            times[index],
            [each.rows(told_rows[index]) for each in told],
            adaptations,
            collectors,
            owner[index[:count]],
        )
        for number, changed in enumerate(changes):
            change = log_error_change(losses[0], losses[number + 1])
            changed.append(change[:count].cpu())
    leash.report("response", 1.0)
    return [
        Response(torch.cat(changed).reshape(len(concepts), -1), collector)
        for changed, collector in zip(changes, collectors, strict=True)
    ]


def _paired_losses(
    base: BaseModel,
    noisy: Tensor,
    target: Tensor,
    times: Tensor,
    told: Sequence[Conditioning],
    adaptations: Sequence[Adaptation],
    collectors: Sequence[ProfileCollector],
    owner: Tensor,
) -> Tensor:
    """One forward pass; float32 [1 + adaptations, rows] losses, the base model's first.

    `owner` has the concepts of the leading rows; the rest are filling and not profiled.
    """
    count, copies, kept = len(noisy), 1 + len(adaptations), len(owner)
    plans = [
        RowPlan(slice((index + 1) * count, (index + 2) * count), adapter.deltas, strength)
        for index, adaptation in enumerate(adaptations)
        for adapter, strength in adaptation
    ]
    conditioning = Conditioning.cat(told)
    with torch.inference_mode(), ExitStack() as stack:
        stack.enter_context(adapted_rows(base, plans))
        for index, collector in enumerate(collectors):
            first = (index + 1) * count
            adapted = slice(first, first + kept)
            stack.enter_context(collector.watching(slice(0, kept), adapted, owner))
        batch = noisy.repeat(copies, *(1 for _ in noisy.shape[1:]))
        prediction = base.denoise(batch, times.repeat(copies), conditioning)
        wanted = target.repeat(copies, *(1 for _ in target.shape[1:]))
        return per_row_loss(prediction, wanted).reshape(copies, count)


def _adapted_prompt(
    base: BaseModel, probes: ProbeSet, adaptation: Adaptation, concepts: Tensor
) -> Conditioning:
    """The probes' prompts through the text encoders as the adapters change them.

    New words take the place of what every row would be told: nothing else makes them act.
    """
    words = [adapter.words for adapter, _ in adaptation if adapter.words]
    with ExitStack() as stack:
        for adapter, strength in adaptation:
            deltas = _outside_denoiser(adapter.deltas, base)
            if deltas:
                stack.enter_context(adapted_text(base, deltas, strength))
        if words:
            return encode_words(base, words)
        return encode_probe_prompts(base, probes, concepts)


def _outside_denoiser(
    deltas: Mapping[ModuleRef, WeightDelta], base: BaseModel
) -> dict[ModuleRef, WeightDelta]:
    return {ref: delta for ref, delta in deltas.items() if ref.component != base.denoiser_component}
