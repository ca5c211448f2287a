"""Several uses at once: one launch screens many, and suspects share the rows of the base model.

Nobody may get another answer because of who waited beside him. A matrix product of another size
may be summed in another order, so sizes are tried out once, on this machine, against the size that
an adapter has alone, and only those are used that give the same bits. What fits none goes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import torch

from loragate_kernels.lora_response import Directions, LowRank, inner_products
from loragate_server.adapter import algebra
from loragate_server.adapter.adapter import ModuleRef
from loragate_server.audit.batching import BlockRows, exact_copies
from loragate_server.audit.materials import Materials
from loragate_server.audit.passes import KnownLosses
from loragate_server.audit.profile import Backend
from loragate_server.audit.response import Adaptation, has_words
from loragate_server.audit.screen import Screen, screen, side_by_side
from loragate_server.audit.stages import Responded, respond
from loragate_server.concepts.gradients import ConceptGradients
from loragate_server.models.base import BaseModel
from loragate_server.out_of_memory import is_out_of_memory
from loragate_server.progress import Leash, go_on

ALONE = 16
"""Rows of the stack of one adapter are filled up to multiples of this (`STACK_STEP`)."""

STEP = 4
"""Ranks in a stack are filled up to multiples of this (`RANK_STEP` of `lora_response`)."""

CPU_WIDTHS = (32, 64, 128, 256)
"""Rows of a stack. Beyond some hundred nothing is gained on a CPU, whose caches it leaves."""

GPU_WIDTHS = (*CPU_WIDTHS, 512, 1024, 2048, 4096)

MOST_COPIES = 4
"""Uses per forward pass. Where the base model's losses are not known yet, 4 share its rows and cost
five eighths of what each does alone; with any number it would be half."""


class Together:
    """Runs the stages of several uses at once, to the same last bit as one after the other.

    Args:
        base: the base model.
        materials: its probes and gradients.
        block: rows per block of a forward pass.
        backend: of the kernels.
        held_bytes: most bytes of activations that wait for their reduction, of one use.
    """

    def __init__(
        self,
        base: BaseModel,
        materials: Materials,
        *,
        block: BlockRows,
        backend: Backend,
        held_bytes: int,
    ) -> None:
        self._base = base
        self._materials = materials
        self._batch_rows = block.rows
        self._backend: Backend = backend
        self._held_bytes = held_bytes
        # elsewhere a row would come out otherwise, where no size is exact
        self._known = KnownLosses() if block.exact else None

    @cached_property
    def few_widths(self) -> tuple[int, ...]:
        """Rows of a stack of few, at which products come out as at `ALONE`; tried out once.

        No other than `ALONE` where there is no memory to try them.
        """
        return self._tried(CPU_WIDTHS, (ALONE,))

    @property
    def knows_few(self) -> bool:
        """Whether `few_widths` are tried out."""
        return "few_widths" in vars(self)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """As `few_widths` for as many as there are, which takes gigabytes on a large base model."""
        few = self.few_widths
        return few if self._base.device.type == "cpu" else self._tried(GPU_WIDTHS, few)

    def _tried(self, tried: Sequence[int], otherwise: tuple[int, ...]) -> tuple[int, ...]:
        """Those that are exact, or others where there is no memory to try these."""
        try:
            return self._exact(tried)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return otherwise

    def _exact(self, tried: Sequence[int]) -> tuple[int, ...]:
        gradients = self._materials.gradients
        if gradients is None:
            return (ALONE,)
        return (ALONE, *exact_widths(gradients, tried, self._backend))

    @cached_property
    def copies(self) -> int:
        """How many uses share a forward pass; tried out once."""
        return exact_copies(self._base, self._materials.probes, self._batch_rows, MOST_COPIES)

    def try_sizes(self) -> None:
        """Finds out now what `screens` and `responses` of many would find out first."""
        _ = self.widths, self.copies

    def screens(
        self,
        gradients: ConceptGradients,
        adaptations: Sequence[Adaptation],
        *,
        few: bool = False,
        poll: Callable[[], None] = go_on,
    ) -> list[Screen]:
        """As `screen` of each; of few, in narrow stacks. Polls before each launch."""
        found: dict[int, Screen] = {}
        if len(adaptations) > 1:
            widths = self.few_widths if few else self.widths
            for group in self._launches(gradients, adaptations, widths):
                poll()
                alone = [adaptations[number][0] for number in group]
                if len(group) > 1:
                    made = _side_by_side(self._base, gradients, alone, self._backend, widths)
                    found.update(zip(group, made, strict=True))
        for number, adaptation in enumerate(adaptations):
            if number not in found:
                poll()
                found[number] = screen(self._base, gradients, adaptation, self._backend)
        return [found[number] for number in range(len(adaptations))]

    def responses(
        self, asked: Sequence[tuple[Adaptation, tuple[int, ...]]], leash: Leash
    ) -> list[Responded]:
        """Runs the response stage of each use on its own suspects.

        Those with the same suspects share forward passes, for only rows at the same place of a
        batch are sure to come out alike.

        Raises:
            NoDecisionError: CANCELLED or DEADLINE_EXCEEDED.
        """
        found: dict[int, Responded] = {}
        for group in self._forwards(asked):
            leash.turn()
            made = respond(
                self._base,
                self._materials,
                [asked[number][0] for number in group],
                asked[group[0]][1],
                batch_rows=self._batch_rows,
                backend=self._backend,
                leash=leash,
                held_bytes=self._held_bytes,
                known=self._known,
            )
            found.update(zip(group, made, strict=True))
        return [found[number] for number in range(len(asked))]

    def _forwards(self, asked: Sequence[tuple[Adaptation, tuple[int, ...]]]) -> Iterator[list[int]]:
        alike: dict[tuple[int, ...], list[int]] = {}
        for number, (adaptation, suspects) in enumerate(asked):
            if has_words(adaptation):
                yield [number]
            else:
                alike.setdefault(suspects, []).append(number)
        for group in alike.values():
            size = 1 if len(group) == 1 else self.copies
            yield from (group[start : start + size] for start in range(0, len(group), size))

    def _launches(
        self,
        gradients: ConceptGradients,
        adaptations: Sequence[Adaptation],
        widths: Sequence[int],
    ) -> Iterator[list[int]]:
        """Which uses are screened in one launch. What cannot share one is in none."""
        fit = [
            (number, ranks)
            for number, adaptation in enumerate(adaptations)
            if (ranks := self._ranks(gradients, adaptation, widths)) is not None
        ]
        if len(fit) < 2 or len(widths) < 2:
            return
        group: list[int] = []
        filled: dict[ModuleRef, int] = {}
        for number, ranks in fit:
            if any(filled.get(ref, 0) + rank > widths[-1] for ref, rank in ranks.items()):
                yield group
                group, filled = [], {}
            group.append(number)
            for ref, rank in ranks.items():
                filled[ref] = filled.get(ref, 0) + rank
        yield group

    def _ranks(
        self, gradients: ConceptGradients, adaptation: Adaptation, widths: Sequence[int]
    ) -> dict[ModuleRef, int] | None:
        """Rows of a stack by layer; None for what is summed otherwise alone than beside others."""
        if len(adaptation) != 1:
            return None
        ranks: dict[ModuleRef, int] = {}
        for ref, delta in adaptation[0][0].deltas.items():
            if ref not in gradients.layers:
                continue
            if not isinstance(delta, algebra.LowRank) or delta.mid is not None:
                return None
            # Triton multiplies bfloat16 as it is, where all adapters of a stack are
            if self._backend == "triton" and torch.bfloat16 in (delta.down.dtype, delta.up.dtype):
                return None
            if -(-len(delta.down) // ALONE) * ALONE not in widths:
                return None
            ranks[ref] = -(-len(delta.down) // STEP) * STEP
        return ranks


def exact_widths(
    gradients: ConceptGradients, tried: Sequence[int], backend: Backend
) -> tuple[int, ...]:
    """The rows of a stack, of those tried, at which an adapter gets the same bits as at `ALONE`.

    In which order a product is summed depends on its size and not on its numbers, so random
    adapters that fill the stack tell it for all. Ends at the first size that fails.
    """
    layers = list(gradients.layers.values())
    directions = Directions(tuple(layers))
    made = torch.Generator().manual_seed(5)

    def adapter(d_out: int, d_in: int) -> LowRank:
        down = torch.randn(ALONE, d_in, generator=made)
        up = torch.randn(d_out, ALONE, generator=made)
        return LowRank(down.to(directions.device), up.to(directions.device), 0.5)

    adapters: list[list[LowRank]] = [[] for _ in layers]
    alone: list[torch.Tensor] = []
    found: list[int] = []
    for width in tried:
        while len(alone) < width // ALONE:
            one = [adapter(layer.d_out, layer.d_in) for layer in layers]
            for known, new in zip(adapters, one, strict=True):
                known.append(new)
            single = [[new] for new in one]
            alone.append(inner_products(single, directions, backend=backend).values[:, 0])
        many = inner_products(adapters, directions, backend=backend).values
        if not all(torch.equal(many[:, place], each) for place, each in enumerate(alone)):
            break
        found.append(width)
    return tuple(found)


def _side_by_side(
    base: BaseModel,
    gradients: ConceptGradients,
    adaptation: Adaptation,
    backend: Backend,
    widths: Sequence[int],
) -> list[Screen]:
    """The screens of adapters that are used one at a time, in one launch."""

    def fill(changes: list[LowRank]) -> list[LowRank]:
        used = sum(-(-change.rank // STEP) * STEP for change in changes)
        rest = next(width for width in widths if width >= used) - used
        down, up = changes[0].down, changes[0].up
        return [LowRank(down.new_zeros(rest, down.shape[1]), up.new_zeros(len(up), rest))]

    return side_by_side(base, gradients, adaptation, backend, fill)
