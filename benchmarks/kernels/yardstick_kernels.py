"""Two kernels to measure against: a read-only sum as the ceiling, and scalar loads in float64.

Both take addresses from tables or pointers as the kernels under test do, and neither is part of
the package.
"""

# Triton reads parameter annotations itself, so they stay objects: no `annotations` future here.
# ruff: noqa: N803 (compile-time constants are written in capitals)
import torch
import triton
import triton.language as tl
from torch import Tensor

from loragate_kernels._pointer_table import PointerTable

TRITON_DTYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


@triton.jit(do_not_specialize=["chunk"])
def read_sum_kernel(p_in, p_partial, chunk, BLOCK: tl.constexpr):
    """Sums one chunk: nothing but full-width loads and an addition.

    p_in: [programs * chunk], chunk a multiple of BLOCK. p_partial: float32 [programs].
    """
    start = tl.program_id(0).to(tl.int64) * chunk
    # the chunk is not specialised on, so its divisibility has to be said
    p = p_in + tl.multiple_of(start, BLOCK)
    o_block = tl.arange(0, BLOCK)
    b_sum = tl.zeros([BLOCK], tl.float32)
    for offset in range(0, chunk, BLOCK):
        b_sum += tl.load(p + offset + o_block).to(tl.float32)
    tl.store(p_partial + tl.program_id(0), tl.sum(b_sum, 0))


@triton.jit(do_not_specialize=["chunk_total"])
def scalar_norm_kernel(p_chunks, p_partial, chunk_total, DTYPE: tl.constexpr, BLOCK: tl.constexpr):
    """Sum of squares of one chunk of one side, in the habits of gradient-norm kernels.

    Addresses come without a promise of alignment, so every load is one element wide; each block
    is squared and reduced to one number in float64 before the next is read.
    p_chunks: int64 [3, chunk_total], as `PointerTable.chunks`; program (chunk, side).
    p_partial: float64 [2, chunk_total].
    """
    i_chunk = tl.program_id(0).to(tl.int64)
    i_side = tl.program_id(1).to(tl.int64)
    total = chunk_total.to(tl.int64)
    p = tl.load(p_chunks + i_side * total + i_chunk).to(tl.pointer_type(DTYPE))
    numel = tl.load(p_chunks + 2 * total + i_chunk).to(tl.int32)
    o_block = tl.arange(0, BLOCK)
    # zero of float64: a Python number would be float32 in the loop
    total_squares = tl.sum(tl.zeros([BLOCK], tl.float64), 0)
    for start in range(0, numel, BLOCK):
        m = start + o_block < numel
        # float32 first: the interpreter keeps bfloat16 as bit patterns
        b = tl.load(p + start + o_block, mask=m, other=0.0).to(tl.float32).to(tl.float64)
        total_squares += tl.sum(b * b, 0)
    tl.store(p_partial + i_side * total + i_chunk, total_squares)


@triton.jit(do_not_specialize=["chunk_total", "segment_total"])
def scalar_norm_fold_kernel(
    p_segments, p_partial, p_out, chunk_total, segment_total, BLOCK: tl.constexpr
):
    """Adds the partial sums of one segment and side. p_out: float64 [2, segment_total]."""
    i_segment = tl.program_id(0).to(tl.int64)
    i_side = tl.program_id(1).to(tl.int64)
    first = tl.load(p_segments + i_segment)
    count = tl.load(p_segments + segment_total.to(tl.int64) + i_segment).to(tl.int32)
    p = p_partial + i_side * chunk_total.to(tl.int64) + first
    o_block = tl.arange(0, BLOCK)
    b_sum = tl.zeros([BLOCK], tl.float64)
    for start in range(0, count, BLOCK):
        b_sum += tl.load(p + start + o_block, mask=start + o_block < count, other=0.0)
    tl.store(p_out + i_side * segment_total.to(tl.int64) + i_segment, tl.sum(b_sum, 0))


READ_SUM_CHOICES = tuple(
    (block, chunk, warps)
    for block, warps in ((2048, 8), (4096, 8), (4096, 16), (8192, 16))
    for chunk in (32768, 65536, 131072)
)
"""(BLOCK, chunk, warps) of the ceiling; the fastest found is the ceiling."""


def read_sum(flat: Tensor, choice: tuple[int, int, int]) -> Tensor:
    """Reads the whole chunks of `flat` once; returns the float32 partial sums."""
    block, chunk, warps = choice
    partial = torch.empty(flat.numel() // chunk, dtype=torch.float32, device=flat.device)
    read_sum_kernel[(len(partial),)](flat, partial, chunk, BLOCK=block, num_warps=warps)
    return partial


def scalar_norms(
    chunks: Tensor, segments: Tensor, table: PointerTable, dtype: torch.dtype
) -> Tensor:
    """Float64 [2, segments]: sums of squares of base and adapted rows.

    Args:
        chunks: `table.chunks` on the device.
        segments: `table.segments` on the device.
        table: of pairs of one dtype.
        dtype: of the pairs.
    """
    chunk_total, segment_total = table.chunks.shape[1], table.segments.shape[1]
    partial = torch.empty(2, chunk_total, dtype=torch.float64, device=chunks.device)
    out = torch.empty(2, segment_total, dtype=torch.float64, device=chunks.device)
    scalar_norm_kernel[(chunk_total, 2)](
        chunks, partial, chunk_total, DTYPE=TRITON_DTYPES[dtype], BLOCK=1024, num_warps=4
    )
    scalar_norm_fold_kernel[(segment_total, 2)](
        segments, partial, out, chunk_total, segment_total, BLOCK=32, num_warps=1
    )
    return out
