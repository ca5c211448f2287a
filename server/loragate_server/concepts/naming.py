"""Where a concept's name acts in layers that read text, whatever its pictures show.

The gradient of rows that are told a concept's name has two sides in every layer. In layers that
read text one of them is made of the words alone: what comes into the keys and values of
cross-attention are the words themselves, queries change along keys of words, and outputs read
values of words. Adapters that learned the concept from another artist's pictures change these sides
as those do that learned from the library's, for the captions are the same.

Words of a prompt have much in common, so directions are weighed against those of the neutral bank:
`X (C + m I)^-1`, with C the bank's mean outer product and m its mean variance (the matched filter
in coloured noise, with a ridge; Van Trees, "Detection, Estimation, and Modulation Theory", part I,
4.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from loragate_kernels.lora_response import LayerDirections
from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.plan import Stratum

RANK = 2
"""Directions that are kept of each name. On the development hand of `benchmarks/audit/other_hands`
one found as many concepts less surely, and four found no more."""

_AT_ONCE = 256
"""Concepts whose directions are made in one go, in doubles: thousands would take gigabytes."""

Side = Literal["in", "out"]

_READS = re.compile(
    r"(?:\.attn2\.to_(?:k|v|out\.0)"  # cross-attention
    r"|\.add_[qkv]_proj|\.to_add_out|\.to_[qkv]_t|\.to_out_t"  # the words' part of a joint one
    r"|\.ff_context\..+|(?:^|\.)context_embedder)$"
)
_ASKS = re.compile(r"\.attn2\.to_q$")


def text_sides(refs: Iterable[ModuleRef]) -> dict[ModuleRef, Side]:
    """Of the layers whose change the words of a prompt decide on one side: which side that is.

    Args:
        refs: all layers of a base model that an adapter may change.
    """
    known = dict.fromkeys(refs)
    found: dict[ModuleRef, Side] = {}
    for ref in known:
        block, _, _ = ref.module.partition(".attn2.")
        # a block that joins words and pictures in `attn` has pictures alone in its second one
        if ModuleRef(ref.component, f"{block}.attn.add_k_proj") in known and block != ref.module:
            continue
        if ref.component.startswith("text_encoder") or _READS.search(ref.module):
            found[ref] = "in"
        elif _ASKS.search(ref.module):
            found[ref] = "out"
    return found


@dataclass(frozen=True)
class NameSpan:
    """Where the names of all concepts act in one layer.

    Attributes:
        side: of the layer's weights, which are [out, in].
        rows: float16 [concepts, RANK, width of that side], of unit Frobenius norm by concept.
    """

    side: Side
    rows: Tensor


def name_spans(
    layers: Mapping[ModuleRef, LayerDirections], strata: Sequence[Stratum], forbidden_count: int
) -> dict[ModuleRef, NameSpan]:
    """The spans of every layer that reads text; none where no stratum is told a name.

    Args:
        layers: the gradients' directions, by concept, then stratum.
        strata: one gradient each.
        forbidden_count: forbidden concepts come first; the others are the neutral bank.
    """
    if not any(stratum.named for stratum in strata):
        return {}
    return {
        ref: _span(side, layers[ref], strata, forbidden_count)
        for ref, side in text_sides(layers).items()
    }


def _span(
    side: Side, directions: LayerDirections, strata: Sequence[Stratum], forbidden_count: int
) -> NameSpan:
    told = [row for row, stratum in enumerate(strata) if stratum.named]

    def rows_of(concepts: slice) -> Tensor:
        left, right = (
            rows.unflatten(0, (-1, len(strata), directions.lengths[0]))[concepts][:, told].double()
            for rows in (directions.left, directions.right)
        )
        return _one_side(left, right) if side == "in" else _one_side(right, left)

    bank = rows_of(slice(forbidden_count, None))
    noise = bank.flatten(0, 1) / len(bank) ** 0.5
    against = _against(noise)
    count, parts = directions.count // len(strata), []
    for start in range(0, count, _AT_ONCE):
        rows = rows_of(slice(start, start + _AT_ONCE))
        parts.append(_leading(rows - (rows @ noise.mT) @ against))
    return NameSpan(side, torch.cat(parts))


def _one_side(others: Tensor, rows: Tensor) -> Tensor:
    """The rows that span one side of each gradient, as long as the gradient is along them.

    Args:
        others: float64 [concepts, strata, rank, width], of the other side.
        rows: the same of this side: a gradient is others^T rows.

    Returns:
        float64 [concepts, strata * rank, width of `rows`].
    """
    values, vectors = torch.linalg.eigh(others @ others.mT)
    root = (vectors * values.clamp_min(0).sqrt().unsqueeze(-2)) @ vectors.mT
    found: Tensor = (root @ rows).flatten(1, 2)
    return found


def _against(noise: Tensor) -> Tensor:
    """B with `x - x noise^T B` along `x (C + m I)^-1`, C = noise^T noise: Woodbury's identity."""
    ridge = (noise.square().sum() / noise.shape[1]).clamp_min(1e-30)
    inner = noise @ noise.mT + ridge * torch.eye(len(noise), dtype=noise.dtype, device=noise.device)
    found: Tensor = torch.linalg.solve(inner, noise)
    return found


def _leading(rows: Tensor) -> Tensor:
    """The `RANK` leading directions of each concept, float16, of unit norm together."""
    _, vectors = torch.linalg.eigh(rows @ rows.mT)
    kept = vectors[..., -RANK:].mT @ rows
    unit: Tensor = kept / kept.flatten(1).norm(dim=1).clamp_min(1e-30)[:, None, None]
    return unit.half()
