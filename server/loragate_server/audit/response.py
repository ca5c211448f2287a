"""The response stage: the base model and the adapted one on the same probe rows.

Deltas are added to the rows of their adaptation only, and every row stands in a batch of one size,
so an adapter without effect changes nothing at all: its error change is exactly 0.0.
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
from loragate_server.audit.passes import (
    BASE,
    Block,
    Item,
    KnownLosses,
    Rows,
    blocks_of,
    key_of,
    passes_of,
)
from loragate_server.audit.profile import HELD_BYTES, Backend, ProfileCollector, stopping
from loragate_server.audit.score import log_error_change
from loragate_server.concepts.probes import ProbeSet, encode_probe_prompts
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
        changes: of each set float64 [concepts, rows], log(adapted / base) of the denoising loss.
        profile: layer statistics of the watched concepts' rows in the first set.
    """

    changes: tuple[Tensor, ...]
    profile: ProfileCollector


def measure(
    base: BaseModel,
    sets: Sequence[ProbeSet],
    concepts: Tensor,
    adaptations: Sequence[Adaptation],
    *,
    batch_rows: int,
    backend: Backend,
    leash: Leash,
    watched: int = 0,
    held_bytes: int = HELD_BYTES,
    known: KnownLosses | None = None,
) -> list[Response]:
    """Runs the forward passes of several adaptations at once.

    Args:
        base: the base model.
        sets: its probes; all with the same concepts.
        concepts: int64 [k], indices into `ProbeSet.concepts` to run.
        adaptations: each is audited as one; all share the base rows. One with new words wants
            probes whose plan is not `named`.
        batch_rows: rows per block; a forward pass has `1 + len(adaptations)` blocks.
        backend: of the activation statistics.
        leash: polled at every layer; told the stage "response", and given turns between passes.
        watched: how many of the first concepts are compared layer by layer, for which the base
            model's rows and the adapted ones share passes.
        held_bytes: most bytes of activations that wait for their reduction, per adaptation.
        known: what was measured of the base model before, and is not run again; grows.

    Raises:
        NoDecisionError: CANCELLED or DEADLINE_EXCEEDED.
    """
    rows = [Rows.of(probes, concepts, base.device) for probes in sets]
    blocks = blocks_of(rows, batch_rows)
    key = key_of(sets, concepts, batch_rows)
    before = None if known is None else known.get(key)
    bench = _Bench(
        base,
        rows,
        blocks,
        [_prompts(base, probes, adaptations, concepts) for probes in sets],
        adaptations,
        [
            ProfileCollector(base.denoiser, max(1, watched), backend, leash, held_bytes)
            for _ in adaptations
        ],
        watched,
        leash,
    )
    paired = sum(block.part == 0 and bench.watched_rows(block) > 0 for block in blocks)
    passes = list(passes_of(len(blocks), paired, 1 + len(adaptations), known=before is not None))
    losses = {} if before is None else {(BASE, row): each for row, each in enumerate(before)}
    for done, items in enumerate(passes):
        leash.check()
        leash.report("response", done / len(passes))
        leash.turn()
        made = bench.losses(items, paired=done < paired)
        for item, each in zip(items, made, strict=True):
            losses.setdefault((item.side, item.block), each)  # what fills a pass is known already
    leash.report("response", 1.0)
    if known is not None and before is None:
        known.put(key, [losses[BASE, number] for number in range(len(blocks))])
    return [
        Response(
            tuple(_changes(blocks, part, losses, side + 1, concepts) for part in range(len(sets))),
            bench.collectors[side],
        )
        for side in range(len(adaptations))
    ]


def _changes(
    blocks: Sequence[Block],
    part: int,
    losses: Mapping[tuple[int, int], Tensor],
    side: int,
    concepts: Tensor,
) -> Tensor:
    """Log error change of one adaptation on one set, float64 [concepts, rows]."""
    found = [
        log_error_change(losses[BASE, number], losses[side, number])[: block.count].cpu()
        for number, block in enumerate(blocks)
        if block.part == part
    ]
    return torch.cat(found).reshape(len(concepts), -1)


@dataclass(frozen=True)
class _Bench:
    """Runs passes over the blocks of some rows.

    `told` has by set the encoded prompts of each side, the base model's first.
    """

    base: BaseModel
    rows: Sequence[Rows]
    blocks: Sequence[Block]
    told: Sequence[Sequence[Conditioning]]
    adaptations: Sequence[Adaptation]
    collectors: Sequence[ProfileCollector]
    watched: int
    leash: Leash

    def watched_rows(self, block: Block) -> int:
        """How many of its leading rows belong to watched concepts."""
        owner = self.rows[block.part].owner[block.index[: block.count]]
        return int((owner < self.watched).sum())

    def losses(self, items: Sequence[Item], *, paired: bool) -> tuple[Tensor, ...]:
        """One forward pass; of each item float32 [block rows].

        Args:
            items: with as many rows each.
            paired: whether all are sides of one block whose layers are compared.
        """
        size = len(self.blocks[0].index)
        places = [slice(number * size, (number + 1) * size) for number in range(len(items))]
        plans = [
            RowPlan(place, adapter.deltas, strength)
            for place, item in zip(places, items, strict=True)
            if item.side != BASE
            for adapter, strength in self.adaptations[item.side - 1]
        ]
        with torch.inference_mode(), ExitStack() as stack:
            stack.enter_context(adapted_rows(self.base, plans))
            if paired:
                self._watch(self.blocks[items[0].block], places, stack)
            else:
                stack.enter_context(stopping(self.base.denoiser, self.leash))
            prediction = self.base.denoise(
                self._of(items, "noisy"),
                self._of(items, "times"),
                Conditioning.cat([self._told(item) for item in items]),
            )
            found: tuple[Tensor, ...] = per_row_loss(prediction, self._of(items, "target")).split(
                size
            )
            return found

    def _watch(self, block: Block, places: Sequence[slice], stack: ExitStack) -> None:
        kept = self.watched_rows(block)
        owner = self.rows[block.part].owner[block.index[:kept]]
        first, *others = (slice(place.start, place.start + kept) for place in places)
        for collector, place in zip(self.collectors, others, strict=True):
            stack.enter_context(collector.watching(first, place, owner))

    def _of(self, items: Sequence[Item], name: str) -> Tensor:
        blocks = [self.blocks[item.block] for item in items]
        return torch.cat([getattr(self.rows[one.part], name)[one.index] for one in blocks])

    def _told(self, item: Item) -> Conditioning:
        block = self.blocks[item.block]
        told = self.rows[block.part].told[block.index]
        return self.told[block.part][item.side].rows(told)


def _prompts(
    base: BaseModel, probes: ProbeSet, adaptations: Sequence[Adaptation], concepts: Tensor
) -> list[Conditioning]:
    """The probes' prompts as the text encoders give them, and as each adaptation has them."""
    plain = encode_probe_prompts(base, probes, concepts)
    return [plain, *(_adapted_prompt(base, probes, each, concepts, plain) for each in adaptations)]


def _adapted_prompt(
    base: BaseModel,
    probes: ProbeSet,
    adaptation: Adaptation,
    concepts: Tensor,
    plain: Conditioning,
) -> Conditioning:
    """The prompts through the text encoders as the adapters change them; `plain` as they do not.

    New words take the place of what every row would be told: nothing else makes them act.
    """
    words = [adapter.words for adapter, _ in adaptation if adapter.words]
    changed = False
    with ExitStack() as stack:
        for adapter, strength in adaptation:
            deltas = _outside_denoiser(adapter.deltas, base)
            if deltas:
                changed = True
                stack.enter_context(adapted_text(base, deltas, strength))
        if words:
            return encode_words(base, words)
        return encode_probe_prompts(base, probes, concepts) if changed else plain


def _outside_denoiser(
    deltas: Mapping[ModuleRef, WeightDelta], base: BaseModel
) -> dict[ModuleRef, WeightDelta]:
    return {ref: delta for ref, delta in deltas.items() if ref.component != base.denoiser_component}
