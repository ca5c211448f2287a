"""Layer profile: how much each layer's activations differ between base and adapted rows.

No activation outlives its forward pass. A layer's output is copied when it is seen, and the copies
are reduced together as soon as they hold `held_bytes`: one launch for many layers. A copy is exact,
and the model may overwrite its output in place right after the hook without spoiling the pair.
Neither the limit nor the neighbours in a launch change a bit of a layer's sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from loragate_kernels import pair_stats
from loragate_server.audit.evidence import LayerProfile
from loragate_server.progress import Leash

Backend = Literal["reference", "triton"]

HELD_BYTES = 64 << 20
"""Default limit of the copies that wait for their reduction: 64 MiB."""

_BLOCK_LISTS = ("resnets", "transformer_blocks", "single_transformer_blocks")
"""Module lists in which every diffusers denoiser keeps its blocks."""


def profiled_layers(denoiser: nn.Module) -> dict[str, nn.Module]:
    """The denoiser's residual and transformer blocks by dotted name, in order of registration."""
    return {
        name: module
        for name, module in denoiser.named_modules()
        if "." in name and name.split(".")[-2] in _BLOCK_LISTS and name.split(".")[-1].isdigit()
    }


@contextmanager
def stopping(denoiser: nn.Module, leash: Leash) -> Iterator[None]:
    """Has forward passes inside stop soon after nobody waits for them: polls at every layer."""

    def poll(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        leash.check()

    handles = [module.register_forward_hook(poll) for module in profiled_layers(denoiser).values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, eq=False)
class _Held:
    """One layer's rows of one forward pass, waiting for their reduction."""

    index: int
    name: str
    base: Tensor
    adapted: Tensor
    concepts: Tensor

    @property
    def nbytes(self) -> int:
        return self.base.nbytes + self.adapted.nbytes


def _settled(rows: Tensor, *, copy: bool) -> Tensor:
    """`rows`, copied if asked to or if a copy would lie otherwise in memory.

    A copy is dense and starts at a multiple of 16 bytes. What decides how a kernel reads a tensor,
    and so its last bits, is then the same whether a layer waited or not.
    """
    reach = 1 + sum((s - 1) * t for s, t in zip(rows.shape, rows.stride(), strict=True))
    lies_well = reach == rows.numel() and rows.data_ptr() % 16 == 0
    return rows if lies_well and not copy else rows.clone()


class ProfileCollector:
    """Sums pair statistics per layer and concept over passes that both models share.

    Every layer is also a place to stop at: the leash is polled there, so that a caller who has
    gone does not cost a whole forward pass of a large model.

    Args:
        denoiser: the model that will be watched.
        concept_count: how many concepts the rows belong to.
        backend: of the statistics.
        leash: polled at every layer.
        held_bytes: most bytes of copies that wait for their reduction; 0 reduces every layer
            inside its hook. A layer that is larger alone is reduced at once, and copied only
            where it is misaligned or has gaps.

    Attributes:
        nonfinite_layer: the first layer whose base or adapted activations were NaN or infinite.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        concept_count: int,
        backend: Backend,
        leash: Leash,
        held_bytes: int = HELD_BYTES,
    ) -> None:
        if held_bytes < 0:
            raise ValueError(f"held_bytes must not be negative, not {held_bytes}")
        self._layers = profiled_layers(denoiser)
        self._backend: Backend = backend
        self._leash = leash
        self._held_bytes = held_bytes
        self._held: list[_Held] = []
        shape = (len(self._layers), concept_count)
        self._difference = torch.zeros(shape, dtype=torch.float64)
        self._base = torch.zeros(shape, dtype=torch.float64)
        self._adapted = torch.zeros(shape, dtype=torch.float64)
        self._product = torch.zeros(shape, dtype=torch.float64)
        self.nonfinite_layer: str | None = None

    @contextmanager
    def watching(self, base_rows: slice, adapted_rows: slice, concepts: Tensor) -> Iterator[None]:
        """Reduces every layer's output of the forward passes inside.

        Args:
            base_rows: rows of the batch that ran through the base model.
            adapted_rows: as many rows, in the same order, that ran with the adapters.
            concepts: int64 [rows], the concept of each pair of rows.
        """
        handles = [
            module.register_forward_hook(self._hook(index, name, base_rows, adapted_rows, concepts))
            for index, (name, module) in enumerate(self._layers.items())
        ]
        try:
            yield
            self._flush()
        finally:
            self._held.clear()
            for handle in handles:
                handle.remove()

    def _hook(
        self, index: int, name: str, base_rows: slice, adapted_rows: slice, concepts: Tensor
    ) -> Any:
        def take(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._leash.check()
            tensor = output[-1] if isinstance(output, tuple) else output
            pair = tensor[base_rows], tensor[adapted_rows]
            waiting = sum(held.nbytes for held in self._held)
            size = sum(side.nbytes for side in pair)
            if waiting + size > self._held_bytes:
                self._flush()
            # What would fill the limit alone is reduced at once and need not be copied.
            alone = size > self._held_bytes
            base, adapted = (_settled(side, copy=not alone) for side in pair)
            self._held.append(_Held(index, name, base, adapted, concepts))
            if alone:
                self._flush()

        return take

    def _flush(self) -> None:
        """Reduces what is held, in the order in which it was seen."""
        if not self._held:
            return
        held, self._held = self._held, []
        stats = pair_stats([(one.base, one.adapted) for one in held], backend=self._backend)
        bad = stats.nonfinite_count.cpu()
        sums = (
            (self._difference, stats.sum_sq_diff.cpu()),
            (self._base, stats.sum_sq_base.cpu()),
            (self._adapted, stats.sum_sq_adapted.cpu()),
            (self._product, stats.sum_product.cpu()),
        )
        for number, one in enumerate(held):
            rows = stats.rows_of(number)
            if self.nonfinite_layer is None and bool(bad[rows].any()):
                self.nonfinite_layer = one.name
            for total, value in sums:
                total[one.index].index_add_(0, one.concepts, value[rows])

    def profile(self, top: int, neutral: slice) -> tuple[LayerProfile, ...]:
        """One entry per layer; `top` is the concept with the highest score."""
        per_concept = (self._difference / self._base.clamp_min(1e-300)).sqrt()
        relative = (self._difference.sum(1) / self._base.sum(1).clamp_min(1e-300)).sqrt()
        norms = (self._base.sum(1) * self._adapted.sum(1)).sqrt().clamp_min(1e-300)
        cosine = (self._product.sum(1) / norms).clamp(-1, 1)
        bank = per_concept[:, neutral].mean(1)
        contrast = torch.where(bank > 0, per_concept[:, top] / bank.clamp_min(1e-300), 1.0)
        return tuple(
            LayerProfile(name, float(relative[i]), float(cosine[i]), float(contrast[i]))
            for i, name in enumerate(self._layers)
        )
