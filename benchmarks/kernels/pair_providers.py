"""Providers of `pair_stats`, each with the bytes it moves.

All return sums per row by the names of `loragate_kernels.pair_stats.result.COMPONENTS`. Those
who leave some out (counting non-finite positions, above all) do less work than we; the tables
say so. Below, e is the size of an element and n the number of elements of one side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.mixes import Pairs
from benchmarks.kernels.registry import Call, Provider, register
from loragate_kernels import pair_stats
from loragate_kernels._pointer_table import build_pointer_table
from loragate_kernels._rows import as_row_pairs
from loragate_kernels.pair_stats.config import architecture_of, choose_config
from loragate_kernels.pair_stats.result import COMPONENTS

OP = "pair_stats"
Sums = dict[str, Tensor]


def useful_bytes(pairs: Pairs) -> int:
    """Every operand read once: 2 n e. What GB/s are computed from, for all providers alike."""
    return sum(2 * base.numel() * base.element_size() for base, _ in pairs)


def _per_element(pairs: Pairs, cost: Callable[[int], int]) -> int:
    return sum(base.numel() * cost(base.element_size()) for base, _ in pairs)


# Ours.


class PreparedPairStats:
    """The kernels of `pair_stats` over a table that is already on the device.

    What `pair_stats` launches, without its work on the host: that cannot be part of a CUDA
    graph, and is timed by the whole call.
    """

    def __init__(self, pairs: Pairs) -> None:
        from loragate_kernels.pair_stats import kernel, launch

        self._kernel, self._launch = kernel, launch
        self._pairs = as_row_pairs(pairs)  # the table holds addresses only
        device = self._pairs[0].device
        self._choice = choose_config(architecture_of(device))
        chunk_sizes = {dtype: one.chunk for dtype, one in self._choice.by_dtype.items()}
        self.table = build_pointer_table(self._pairs, chunk_sizes)
        self._chunks = self.table.chunks.to(device)
        self._segments = self.table.segments.to(device)

    def __call__(self) -> Sums:
        chunk_total, segment_total = self._chunks.shape[1], self._segments.shape[1]
        device = self._chunks.device
        partial = torch.empty(6, chunk_total, dtype=torch.float32, device=device)
        result = torch.empty(6, segment_total, dtype=torch.float64, device=device)
        for one in self.table.launches:
            self._kernel.pair_stats_partial_kernel[(one.chunk_count,)](
                self._chunks,
                partial,
                one.first_chunk,
                chunk_total,
                **self._launch.partial_options(
                    one.dtype, one.aligned, self._choice.by_dtype[one.dtype]
                ),
            )
        self._kernel.pair_stats_fold_kernel[(segment_total,)](
            self._segments,
            partial,
            result,
            chunk_total,
            segment_total,
            **self._launch.fold_options(self._choice.fold),
        )
        return dict(zip(COMPONENTS, result.unbind(), strict=True))


def prepared_traffic(pairs: Pairs) -> int:
    """Operands once; 24 bytes of table and 24 of partial sums, written and read, per chunk."""
    rows = as_row_pairs(pairs)
    choice = choose_config(architecture_of(rows[0].device))
    chunks = 0
    for row in rows:
        chunk = choice.by_dtype[row.dtype].chunk
        chunks += row.rows * -(-row.numel // chunk)
    return useful_bytes(pairs) + chunks * (24 + 24 + 24)


def _whole_call(backend: Any) -> Callable[[Pairs], Call]:
    def prepare(pairs: Pairs) -> Call:
        def call() -> Sums:
            stats = pair_stats(pairs, backend=backend)
            return {name: getattr(stats, name) for name in COMPONENTS}

        return call

    return prepare


def _reference_traffic(pairs: Pairs) -> int:
    """Per tile, which stays in the cache from the first read on: operands once."""
    return useful_bytes(pairs)


# Eager.


def _each(one: Callable[[Tensor, Tensor], Sums]) -> Callable[[Pairs], Call]:
    """A call that treats pair after pair."""

    def prepare(pairs: Pairs) -> Call:
        def call() -> Sums:
            parts = [one(base.flatten(1), adapted.flatten(1)) for base, adapted in pairs]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

        return call

    return prepare


def idiomatic(base: Tensor, adapted: Tensor) -> Sums:
    """What the formula looks like in PyTorch, in float32."""
    a, b = base.float(), adapted.float()
    d = a - b
    return {
        "sum_sq_diff": (d * d).sum(1),
        "sum_sq_base": (a * a).sum(1),
        "sum_sq_adapted": (b * b).sum(1),
        "sum_product": (a * b).sum(1),
        "max_abs_diff": d.abs().amax(1),
    }


def _widened(e: int) -> int:
    """Two copies to float32: e read and 4 written each; none where it is float32 already."""
    return 0 if e == 4 else 2 * (e + 4)


def idiomatic_cost(e: int) -> int:
    """Widen; difference 12; three squares and their sums 12 each; product and sum 16; max 12."""
    return _widened(e) + 12 + 3 * 12 + 16 + 12


def _norms_and_dot(a: Tensor, b: Tensor, d: Tensor) -> Sums:
    """Reductions that need no temporaries; a dot product per row, as a batched one is slower."""
    norm = torch.linalg.vector_norm
    wide = torch.float32
    return {
        "sum_sq_diff": norm(d, dim=1, dtype=wide).square(),
        "sum_sq_base": norm(a, dim=1, dtype=wide).square(),
        "sum_sq_adapted": norm(b, dim=1, dtype=wide).square(),
        "sum_product": torch.stack([torch.dot(x, y) for x, y in zip(a, b, strict=True)]).to(wide),
        "max_abs_diff": norm(d, ord=float("inf"), dim=1, dtype=wide),
    }


def fp32_correct(base: Tensor, adapted: Tensor) -> Sums:
    """All arithmetic in float32, with reductions that need no temporaries."""
    a, b = base.float(), adapted.float()
    return _norms_and_dot(a, b, a - b)


def fp32_correct_cost(e: int) -> int:
    """Widen; difference 12; norms of d, a, b 4 each; dot 8; largest 4."""
    return _widened(e) + 12 + 3 * 4 + 8 + 4


def best(base: Tensor, adapted: Tensor) -> Sums:
    """The fewest bytes in eager mode: the difference and the dot are rounded to the input type."""
    return _norms_and_dot(base, adapted, base - adapted)


def best_cost(e: int) -> int:
    """Difference 3 e; norms of d, a, b e each; dot 2 e; largest e."""
    return 9 * e


def foreach_prepare(pairs: Pairs) -> Call:
    """Lists of rows, in few launches; there is no product among the foreach operations."""
    bases = [row for base, _ in pairs for row in base.flatten(1).unbind()]
    adapted = [row for _, tensor in pairs for row in tensor.flatten(1).unbind()]
    wide = torch.float32

    def call() -> Sums:
        differences = torch._foreach_sub(bases, adapted)
        norms = {
            "sum_sq_diff": torch._foreach_norm(differences, 2, dtype=wide),
            "sum_sq_base": torch._foreach_norm(bases, 2, dtype=wide),
            "sum_sq_adapted": torch._foreach_norm(adapted, 2, dtype=wide),
        }
        largest = torch._foreach_norm(differences, float("inf"), dtype=wide)
        sums = {name: torch.stack(list(values)).square() for name, values in norms.items()}
        return sums | {"max_abs_diff": torch.stack(list(largest))}

    return call


def foreach_cost(e: int) -> int:
    """Difference 3 e; three norms and the largest e each."""
    return 7 * e


# A kernel with other habits, and the compiler.


def scalar_prepare(pairs: Pairs) -> Call:
    """Sums of squares of both sides by `scalar_norm_kernel`."""
    from benchmarks.kernels.yardstick_kernels import scalar_norms

    rows = as_row_pairs(pairs)
    dtype, device = rows[0].dtype, rows[0].device
    table = build_pointer_table(rows, {dtype: 65536})
    chunks, segments = table.chunks.to(device), table.segments.to(device)

    def call() -> Sums:
        sums = scalar_norms(chunks, segments, table, dtype)
        assert rows  # the table holds addresses only: this keeps the operands alive
        return {"sum_sq_base": sums[0], "sum_sq_adapted": sums[1]}

    return call


@cache
def _compiled(function: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    mode = "max-autotune-no-cudagraphs" if device_type == "cuda" else None
    # shapes are many and known: without this the compiler gives up after eight
    torch._dynamo.config.recompile_limit = 1024
    return torch.compile(function, dynamic=False, mode=mode)


def compile_each(pairs: Pairs) -> Call:
    """The idiomatic formula compiled for every shape."""
    return _each(_compiled(idiomatic, pairs[0][0].device.type))(pairs)


def _all_idiomatic(bases: list[Tensor], adapted: list[Tensor]) -> list[Sums]:
    return [idiomatic(a, b) for a, b in zip(bases, adapted, strict=True)]


def compile_list(pairs: Pairs) -> Call:
    """The idiomatic formula over all pairs in one graph."""
    compiled = _compiled(_all_idiomatic, pairs[0][0].device.type)
    bases = [base.flatten(1) for base, _ in pairs]
    others = [adapted.flatten(1) for _, adapted in pairs]

    def call() -> Mapping[str, Tensor]:
        parts = compiled(bases, others)
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    return call


def _add(name: str, what: str, prepare: Any, traffic: Any, **options: bool) -> None:
    register(Provider(OP, name, what, prepare, traffic, **options))


def _costs(cost: Callable[[int], int]) -> Callable[[Pairs], int]:
    return lambda pairs: _per_element(pairs, cost)


OURS, WHOLE, REFERENCE = "ours", "ours, whole call", "ours, reference"
IDIOMATIC, CORRECT, BEST = "eager idiomatic", "eager float32", "eager best"
FOREACH, SCALAR = "foreach, no product", "scalar float64, norms only"
EACH, LIST = "compile per shape", "compile whole list"

_add(OURS, "the two kernels", PreparedPairStats, prepared_traffic, triton=True)
_add(
    WHOLE,
    "pair_stats with all it does on the host",
    _whole_call("triton"),
    prepared_traffic,
    triton=True,
    graph=False,
)
_add(
    REFERENCE,
    "pair_stats in plain PyTorch, tile by tile",
    _whole_call("reference"),
    _reference_traffic,
    graph=False,
)
_add(IDIOMATIC, "the formula, in float32", _each(idiomatic), _costs(idiomatic_cost))
_add(CORRECT, "norms and dots in float32", _each(fp32_correct), _costs(fp32_correct_cost))
_add(BEST, "difference rounded to the input type", _each(best), _costs(best_cost))
_add(FOREACH, "lists of rows; 4 of 6 sums", foreach_prepare, _costs(foreach_cost))
_add(SCALAR, "one-element loads; 2 of 6 sums", scalar_prepare, useful_bytes, triton=True)
_add(
    EACH,
    "torch.compile of the formula, static shapes",
    compile_each,
    useful_bytes,
    least_traffic=True,
    compiled=True,
)
_add(
    LIST,
    "torch.compile over all pairs at once",
    compile_list,
    useful_bytes,
    least_traffic=True,
    compiled=True,
)
