"""`pair_stats` in plain PyTorch: exact where it matters, and fast enough to audit with on a CPU.

A row is summed in tiles that fit a cache: products in float32 (exact for 16-bit inputs, one
rounding for float32), PyTorch's cascade summation inside a tile, float64 across tiles. That is
within 1e-6 of an all-float64 computation as long as no product overflows or loses digits to the
subnormal range. Rows where one could have are found by their sums and computed again in float64,
which is also where non-finite elements are counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loragate_kernels._rows import RowPair

TILE_ELEMENTS = 1 << 18
"""Elements per tile: 1 MiB of float32 scratch. Fixed, because it decides the order of summation."""

EXACT_TILE_ELEMENTS = 1 << 22

SAFE_MINIMUM_SQUARE = 1e-28
"""Below this, squares of elements may have left float32's normal range (1.2e-38)."""


def reference_components(pairs: Sequence[RowPair]) -> Tensor:
    """Computes the six components of every (pair, row).

    Returns:
        float64 [6, segments], in the order of `result.COMPONENTS`, on the device of the pairs.
    """
    device = pairs[0].base.device
    scratch = torch.empty(
        min(TILE_ELEMENTS, max(pair.base.numel() for pair in pairs)),
        dtype=torch.float32,
        device=device,
    )
    return torch.cat([_pair_components(pair, scratch) for pair in pairs], dim=1)


def _pair_components(pair: RowPair, scratch: Tensor) -> Tensor:
    result = torch.zeros(6, pair.rows, dtype=torch.float64, device=pair.base.device)
    if pair.base.numel() == 0:
        return result
    width = min(pair.numel, TILE_ELEMENTS)
    height = max(1, TILE_ELEMENTS // width)
    for top in range(0, pair.rows, height):
        base, adapted = pair.base[top : top + height], pair.adapted[top : top + height]
        rows = result[:, top : top + height]
        for left in range(0, pair.numel, width):
            _add_tile(rows, base[:, left : left + width], adapted[:, left : left + width], scratch)
    for row in _rows_to_repeat(pair, result):
        result[:, row] = _exact_row(pair.base[row], pair.adapted[row])
    return result


def _add_tile(rows: Tensor, base: Tensor, adapted: Tensor, scratch: Tensor) -> None:
    """Adds the tile [r, c] to `rows` (float64 [6, r]).

    The root of a rounded square is the number itself where neither left the normal range, so
    the largest difference comes from the largest squared difference without another pass.
    """
    base, adapted = base.float(), adapted.float()
    square = scratch[: base.numel()].view(base.shape)
    torch.sub(base, adapted, out=square)
    square.mul_(square)
    rows[0] += square.sum(dim=1)
    rows[4] = torch.maximum(rows[4], square.amax(dim=1).sqrt())
    rows[1] += torch.mul(base, base, out=square).sum(dim=1)
    rows[2] += torch.mul(adapted, adapted, out=square).sum(dim=1)
    rows[3] += torch.mul(base, adapted, out=square).sum(dim=1)


def _rows_to_repeat(pair: RowPair, components: Tensor) -> list[int]:
    """Rows with non-finite elements, overflow, or sums so small that digits may be lost.

    Rows without any difference are common (layers that an adapter does not reach) and need no
    repetition, but a squared difference may also have vanished: those rows are compared.
    """
    difference, squares = components[0], components[1:3]
    doubtful = ~torch.isfinite(components[:4]).all(dim=0)
    doubtful |= (squares < SAFE_MINIMUM_SQUARE).any(dim=0)
    doubtful |= (difference < SAFE_MINIMUM_SQUARE) & (difference > 0)
    return [
        row
        for row in (doubtful | (difference == 0)).nonzero().flatten().tolist()
        if doubtful[row] or not torch.equal(pair.base[row], pair.adapted[row])
    ]


def _exact_row(base: Tensor, adapted: Tensor) -> Tensor:
    """The six components of one row, float64 [6], all arithmetic in float64."""
    result = torch.zeros(6, dtype=torch.float64, device=base.device)
    for start in range(0, base.numel(), EXACT_TILE_ELEMENTS):
        a = base[start : start + EXACT_TILE_ELEMENTS].double()
        b = adapted[start : start + EXACT_TILE_ELEMENTS].double()
        difference = a - b
        result[0] += difference.square().sum()
        result[1] += a.square().sum()
        result[2] += b.square().sum()
        result[3] += (a * b).sum()
        result[4] = torch.maximum(result[4], difference.abs().amax().float().double())
        result[5] += (~(torch.isfinite(a) & torch.isfinite(b))).sum()
    return result
