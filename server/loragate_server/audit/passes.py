"""Which rows go into which forward pass of the response stage.

The rows of some concepts are cut into blocks of one size, and each pass takes as many blocks as
were tried out to come out alike wherever they stand (`batching`). Blocks that are compared layer by
layer share a pass with the base model's; the others need not, because the base model's losses are
remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loragate_server.concepts.probes import ProbeSet, prompt_rows

BASE = 0
"""The side of the base model; adaptations follow from 1 on."""

WATCHED_BANK = 4
"""Neutral concepts at least whose layers are compared beside those of the suspects."""

MOST_KNOWN = 1 << 20
"""Rows whose losses are remembered, 4 bytes each: some thousand choices of suspects of a small
library, some dozens of one with thousands of concepts that are all asked for."""


@dataclass(frozen=True)
class Rows:
    """The rows of some concepts in one set of probes; ordered by concept.

    Attributes:
        noisy: float32 [rows, ...latent].
        target: the same shape.
        times: float32 [rows].
        told: int64 [rows], which row of the encoded prompts each is told.
        owner: int64 [rows], which of the concepts each belongs to.
    """

    noisy: Tensor
    target: Tensor
    times: Tensor
    told: Tensor
    owner: Tensor

    @classmethod
    def of(cls, probes: ProbeSet, concepts: Tensor, device: torch.device) -> Rows:
        """Those of `concepts`, int64 [k]."""
        each = probes.plan.rows
        return cls(
            probes.noisy[concepts].flatten(0, 1).to(device),
            probes.target[concepts].flatten(0, 1).to(device),
            probes.times.repeat(len(concepts)),
            prompt_rows(probes, concepts).repeat_interleave(each).to(device),
            torch.arange(len(concepts)).repeat_interleave(each),
        )


@dataclass(frozen=True)
class Block:
    """Rows of one set that stay together.

    Attributes:
        part: which set.
        index: int64 [block rows] of the set's rows. The last block is filled up from the set's
            beginning, because rows are only comparable at one size.
        count: rows before the filling.
    """

    part: int
    index: Tensor
    count: int


@dataclass(frozen=True)
class Item:
    """A block as one side sees it: the base model (`BASE`), or an adaptation."""

    side: int
    block: int


def blocks_of(rows: Sequence[Rows], size: int) -> list[Block]:
    """All rows of all sets, in order, `size` per block."""
    return [
        Block(
            part,
            torch.arange(start, start + size) % len(each.owner),
            min(size, len(each.owner) - start),
        )
        for part, each in enumerate(rows)
        for start in range(0, len(each.owner), size)
    ]


def watched_concepts(suspects: int, concepts: int, rows_each: int, size: int) -> int:
    """How many of the leading concepts are compared layer by layer.

    The suspects and `WATCHED_BANK` of the bank behind them, and what else has room in their blocks.
    """
    rows = min(concepts, suspects + WATCHED_BANK) * rows_each
    return min(concepts, -(-rows // size) * size // rows_each)


def passes_of(blocks: int, watched: int, sides: int, *, known: bool) -> Iterator[list[Item]]:
    """Which items share a forward pass; every pass has `sides` of them.

    Args:
        blocks: how many there are.
        watched: how many of the first ones are compared layer by layer.
        sides: the base model and the adaptations.
        known: whether the base model's losses are known.
    """
    for block in range(watched):
        yield [Item(side, block) for side in range(sides)]
    first = BASE + 1 if known else BASE
    rest = [Item(side, block) for block in range(watched, blocks) for side in range(first, sides)]
    for start in range(0, len(rest), sides):
        some = rest[start : start + sides]
        yield some + [Item(BASE, some[-1].block)] * (sides - len(some))


class KnownLosses:
    """What the base model makes of rows, which no adapter changes. Belongs to one thread at a time.

    The losses of a row are those of its place in a block, so they are kept by the whole choice of
    concepts.

    Args:
        most: rows that are remembered.
    """

    def __init__(self, most: int = MOST_KNOWN) -> None:
        self._most = most
        self._rows = 0
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Tensor | None:
        """Float32 [blocks, block rows] on the base model's device; None where not known."""
        found = self._kept.get(key)
        if found is not None:
            self._kept.move_to_end(key)
        return found

    def put(self, key: Hashable, losses: Sequence[Tensor]) -> None:
        """Remembers those of all blocks, and forgets what was asked for longest ago.

        What is NaN or infinite may be a fault that passes, and is measured again.
        """
        copied = torch.stack(list(losses))
        if key in self._kept or not bool(copied.isfinite().all()):
            return
        self._kept[key] = copied
        self._rows += copied.numel()
        while self._rows > self._most:
            _, gone = self._kept.popitem(last=False)
            self._rows -= gone.numel()


def key_of(sets: Sequence[ProbeSet], concepts: Tensor, size: int) -> Hashable:
    """Names all that the base model's losses of one engine depend on."""
    plans = tuple(repr(probes.plan) for probes in sets)
    return plans, concepts.cpu().numpy().tobytes(), size, torch.get_num_threads()
