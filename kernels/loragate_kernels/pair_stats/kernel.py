"""The kernels of `pair_stats`: partial sums per chunk, then a fold per (pair, row).

No atomics and no tuning at run time: which element is added to which lane in which order follows
from the chunk table and the constants alone, so results repeat bit for bit.
"""

# Triton reads parameter annotations itself, so they stay objects: no `annotations` future here.
import triton
import triton.language as tl

GROUP: tl.constexpr = tl.constexpr(4)
"""Neighbours that are added up before they meet a lane. One load of any type holds whole groups, so
this costs nothing, and a quarter of the accumulators leaves registers to threads that read."""


@triton.jit(do_not_specialize=["first_chunk", "chunk_total"])
def pair_stats_partial_kernel(
    p_chunks,
    p_partial,
    first_chunk,
    chunk_total,
    DTYPE: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Stage one: one program reduces one chunk to six numbers.

    Formula: sum (a-b)^2, sum a^2, sum b^2, sum a*b, max |a-b|, count of non-finite positions.
    p_chunks: int64 [3, chunk_total]: address of a, address of b, elements (at most 2^24).
    p_partial: float32 [6, chunk_total]; column first_chunk + program id is written.
    DTYPE: element type of the chunks of this launch; arithmetic is float32 whatever it is.
    ALIGNED: all addresses of this launch are multiples of 16; the caller has checked it.
    Deterministic: lane k adds the sums of elements 4k to 4k + 3, BLOCK + 4k to BLOCK + 4k + 3, ...
    in this order, then the lanes are reduced once.
    """
    i_chunk = first_chunk.to(tl.int64) + tl.program_id(0)
    stride = chunk_total.to(tl.int64)
    address_a = tl.load(p_chunks + i_chunk)
    address_b = tl.load(p_chunks + stride + i_chunk)
    numel = tl.load(p_chunks + 2 * stride + i_chunk).to(tl.int32)
    p_a = address_a.to(tl.pointer_type(DTYPE))
    p_b = address_b.to(tl.pointer_type(DTYPE))
    if ALIGNED:
        # addresses read from memory carry no facts, and facts about them do not survive the cast;
        # without this every load is one element wide
        p_a = tl.multiple_of(p_a, 16)
        p_b = tl.multiple_of(p_b, 16)
    o_block = tl.arange(0, BLOCK)
    b_dd = tl.zeros([BLOCK // GROUP], tl.float32)
    b_aa = tl.zeros([BLOCK // GROUP], tl.float32)
    b_bb = tl.zeros([BLOCK // GROUP], tl.float32)
    b_ab = tl.zeros([BLOCK // GROUP], tl.float32)
    b_max = tl.zeros([BLOCK // GROUP], tl.float32)
    # the main loop has no mask: a mask with an unknown end would forbid wide loads
    full = numel // BLOCK * BLOCK
    for start in tl.range(0, full, BLOCK, loop_unroll_factor=2):
        b_a = tl.load(p_a + start + o_block)
        b_b = tl.load(p_b + start + o_block)
        b_dd, b_aa, b_bb, b_ab, b_max = _add_block(b_a, b_b, b_dd, b_aa, b_bb, b_ab, b_max)
    if full < numel:
        m_tail = full + o_block < numel
        b_a = tl.load(p_a + full + o_block, mask=m_tail, other=0.0)
        b_b = tl.load(p_b + full + o_block, mask=m_tail, other=0.0)
        b_dd, b_aa, b_bb, b_ab, b_max = _add_block(b_a, b_b, b_dd, b_aa, b_bb, b_ab, b_max)
    sum_aa = tl.sum(b_aa, 0)
    sum_bb = tl.sum(b_bb, 0)
    p_out = p_partial + i_chunk
    tl.store(p_out, tl.sum(b_dd, 0))
    tl.store(p_out + stride, sum_aa)
    tl.store(p_out + 2 * stride, sum_bb)
    tl.store(p_out + 3 * stride, tl.sum(b_ab, 0))
    tl.store(p_out + 4 * stride, tl.max(b_max, 0))
    bad = 0.0
    # a square that is not finite spoils its sum, so only then is there something to count
    if not (sum_aa + sum_bb < float("inf")):
        bad = _count_bad(p_a, p_b, numel, BLOCK)
    tl.store(p_out + 5 * stride, bad)


@triton.jit
def _add_block(b_a, b_b, b_dd, b_aa, b_bb, b_ab, b_max):
    """The accumulators with one block added, group by group."""
    b_a = tl.reshape(b_a.to(tl.float32), [b_dd.shape[0], GROUP])
    b_b = tl.reshape(b_b.to(tl.float32), [b_dd.shape[0], GROUP])
    b_d = b_a - b_b
    b_dd += tl.sum(b_d * b_d, 1)
    b_aa += tl.sum(b_a * b_a, 1)
    b_bb += tl.sum(b_b * b_b, 1)
    b_ab += tl.sum(b_a * b_b, 1)
    b_max = tl.maximum(b_max, tl.max(tl.abs(b_d), 1))
    return b_dd, b_aa, b_bb, b_ab, b_max


@triton.jit
def _count_bad(p_a, p_b, numel, BLOCK: tl.constexpr):
    """Float32: positions where either element is NaN or infinite, by reading the chunk again."""
    o_block = tl.arange(0, BLOCK)
    b_bad = tl.zeros([BLOCK], tl.int32)
    for start in range(0, numel, BLOCK):
        m = start + o_block < numel
        b_a = tl.load(p_a + start + o_block, mask=m, other=0.0).to(tl.float32)
        b_b = tl.load(p_b + start + o_block, mask=m, other=0.0).to(tl.float32)
        m_good = (tl.abs(b_a) < float("inf")) & (tl.abs(b_b) < float("inf"))
        b_bad += tl.where(m_good, 0, 1)
    return tl.sum(b_bad, 0).to(tl.float32)


@triton.jit(do_not_specialize=["chunk_total", "segment_total"])
def pair_stats_fold_kernel(
    p_segments,
    p_partial,
    p_out,
    chunk_total,
    segment_total,
    FOLD_BLOCK: tl.constexpr,
):
    """Stage two: one program folds the partial results of one (pair, row) in float64.

    p_segments: int64 [2, segment_total]: first chunk, number of chunks (may be 0).
    p_partial: float32 [6, chunk_total], written by stage one.
    p_out: float64 [6, segment_total]; column program id is written.
    Deterministic: chunks are added in the order of the row.
    """
    i_segment = tl.program_id(0).to(tl.int64)
    segments = segment_total.to(tl.int64)
    stride = chunk_total.to(tl.int64)
    first = tl.load(p_segments + i_segment)
    count = tl.load(p_segments + segments + i_segment).to(tl.int32)
    p_in = p_partial + first
    o_fold = tl.arange(0, FOLD_BLOCK)
    b_dd = tl.zeros([FOLD_BLOCK], tl.float64)
    b_aa = tl.zeros([FOLD_BLOCK], tl.float64)
    b_bb = tl.zeros([FOLD_BLOCK], tl.float64)
    b_ab = tl.zeros([FOLD_BLOCK], tl.float64)
    b_max = tl.zeros([FOLD_BLOCK], tl.float64)
    b_bad = tl.zeros([FOLD_BLOCK], tl.float64)
    for start in range(0, count, FOLD_BLOCK):
        m = start + o_fold < count
        p = p_in + start + o_fold
        b_dd += tl.load(p, mask=m, other=0.0).to(tl.float64)
        b_aa += tl.load(p + stride, mask=m, other=0.0).to(tl.float64)
        b_bb += tl.load(p + 2 * stride, mask=m, other=0.0).to(tl.float64)
        b_ab += tl.load(p + 3 * stride, mask=m, other=0.0).to(tl.float64)
        b_max = tl.maximum(b_max, tl.load(p + 4 * stride, mask=m, other=0.0).to(tl.float64))
        b_bad += tl.load(p + 5 * stride, mask=m, other=0.0).to(tl.float64)
    p_result = p_out + i_segment
    tl.store(p_result, tl.sum(b_dd, 0))
    tl.store(p_result + segments, tl.sum(b_aa, 0))
    tl.store(p_result + 2 * segments, tl.sum(b_bb, 0))
    tl.store(p_result + 3 * segments, tl.sum(b_ab, 0))
    tl.store(p_result + 4 * segments, tl.max(b_max, 0))
    tl.store(p_result + 5 * segments, tl.sum(b_bad, 0))
