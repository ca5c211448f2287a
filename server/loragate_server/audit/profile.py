"""Layer profile: how much each layer's activations differ between base and adapted rows.

The outputs are reduced inside the forward hooks, so no activation is stored and a later in-place
operation cannot spoil a pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from loragate_kernels import pair_stats
from loragate_server.audit.evidence import LayerProfile
from loragate_server.progress import Leash

Backend = Literal["reference", "triton"]

_BLOCK_LISTS = ("resnets", "transformer_blocks", "single_transformer_blocks")
"""Module lists in which every diffusers denoiser keeps its blocks."""


def profiled_layers(denoiser: nn.Module) -> dict[str, nn.Module]:
    """The denoiser's residual and transformer blocks by dotted name, in order of registration."""
    return {
        name: module
        for name, module in denoiser.named_modules()
        if "." in name and name.split(".")[-2] in _BLOCK_LISTS and name.split(".")[-1].isdigit()
    }


class ProfileCollector:
    """Sums pair statistics per layer and concept over the batches of one audit.

    Every layer is also a place to stop at: the leash is polled there, so that a caller who has
    gone does not cost a whole forward pass of a large model.

    Attributes:
        nonfinite_layer: the first layer whose adapted activations were NaN or infinite.
    """

    def __init__(
        self, denoiser: nn.Module, concept_count: int, backend: Backend, leash: Leash
    ) -> None:
        self._layers = profiled_layers(denoiser)
        self._backend: Backend = backend
        self._leash = leash
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
        finally:
            for handle in handles:
                handle.remove()

    def _hook(
        self, index: int, name: str, base_rows: slice, adapted_rows: slice, concepts: Tensor
    ) -> Any:
        def reduce(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._leash.check()
            tensor = output[-1] if isinstance(output, tuple) else output
            stats = pair_stats([(tensor[base_rows], tensor[adapted_rows])], backend=self._backend)
            if self.nonfinite_layer is None and bool(stats.nonfinite_count.any()):
                self.nonfinite_layer = name
            for total, value in (
                (self._difference, stats.sum_sq_diff),
                (self._base, stats.sum_sq_base),
                (self._adapted, stats.sum_sq_adapted),
                (self._product, stats.sum_product),
            ):
                total[index].index_add_(0, concepts, value.cpu())

        return reduce

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
