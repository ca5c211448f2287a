"""The three kernels of `lora_response`: two for partial sums, and a fold of what they leave.

The products that all adapters of a layer share are made before (one matrix product each); these
kernels reduce the small block that belongs to each adapter. No atomics and no tuning at run time:
the order of every sum follows from the constants alone, so results repeat bit for bit.
"""

# Triton reads parameter annotations itself, so they stay objects: no `annotations` future here.
import triton
import triton.language as tl

SLAB: tl.constexpr = tl.constexpr(16)
"""Columns of R that the energy kernel multiplies at once; more would not fit the registers."""


@triton.jit(
    do_not_specialize=["entry_total", "token_count", "token_first", "token_total", "block_total"]
)
def lora_response_energy_kernel(
    p_table,
    p_factor,
    p_u,
    p_partial,
    p_token,
    entry_total,
    token_count,
    token_first,
    token_total,
    block_total,
    ALIGNED: tl.constexpr,
    PER_TOKEN: tl.constexpr,
    RANK_BLOCK: tl.constexpr,
    TOKEN_BLOCK: tl.constexpr,
):
    """Stage one of energies: program (n, e) sums the squares of R U over one block of tokens.

    Formula: sum over i, t of (sum over k of R[i, k] U[k, t])^2, or one sum
    for each t.
    p_table: int64 [6, entry_total], by entry: adapter, first row of U, rank, rows of R, offset of
        R in p_factor, elements from row to row of R (both multiples of 16).
    p_factor: float32; every R, upper triangular, with its columns filled up to a multiple of 16
        and its rows to one of RANK_BLOCK, the rows with zeros and the columns with any numbers.
    p_u: float32 [rows, token_count], U of the tokens from token_first on; all adapters.
    p_partial: float32 [adapters, block_total]; one element per program is written.
    p_token: float32 [adapters, token_total]; written if PER_TOKEN.
    ALIGNED: token_count and token_total are multiples of 16; the caller has checked it.
    Ranks above RANK_BLOCK are worked off RANK_BLOCK rows of R at a time.
    Deterministic: columns of R are added in their order, then rows, then tokens.
    """
    i_block = tl.program_id(0).to(tl.int64)
    i_entry = tl.program_id(1).to(tl.int64)
    entries = entry_total.to(tl.int64)
    stride = token_count.to(tl.int64)
    tokens = token_total.to(tl.int64)
    if ALIGNED:
        # what a mask compares with decides how wide a load may be, as much as addresses do
        stride = tl.multiple_of(stride, 16)
        tokens = tl.multiple_of(tokens, 16)
    adapter = tl.load(p_table + i_entry)
    first = tl.load(p_table + entries + i_entry)
    rank = tl.load(p_table + 2 * entries + i_entry).to(tl.int32)
    rows = tl.load(p_table + 3 * entries + i_entry).to(tl.int32)
    offset = tl.multiple_of(tl.load(p_table + 4 * entries + i_entry), 16)
    width = tl.multiple_of(tl.load(p_table + 5 * entries + i_entry).to(tl.int32), SLAB)
    o_token = i_block * TOKEN_BLOCK + tl.arange(0, TOKEN_BLOCK)
    o_row = tl.arange(0, RANK_BLOCK)
    o_slab = tl.arange(0, SLAB)
    m_token = o_token < stride
    b_energy = tl.zeros([TOKEN_BLOCK], tl.float32)
    for top in range(0, rows, RANK_BLOCK):
        b_y = tl.zeros([RANK_BLOCK, TOKEN_BLOCK], tl.float32)
        p_r = p_factor + offset + (top + o_row).to(tl.int64)[:, None] * width + o_slab[None, :]
        # left of its diagonal R is zero
        for k in range(top, rank, SLAB):
            o_k = k + o_slab
            b_r = tl.load(p_r + k)  # [RANK_BLOCK, SLAB]
            m_u = (o_k < rank)[:, None] & m_token[None, :]
            p_slab = p_u + (first + o_k)[:, None] * stride + o_token[None, :]
            b_u = tl.load(p_slab, mask=m_u, other=0.0)  # [SLAB, TOKEN_BLOCK]
            b_y = tl.dot(b_r, b_u, b_y, input_precision="ieee")
        b_energy += tl.sum(b_y * b_y, 0)
    if PER_TOKEN:
        p_out = p_token + adapter * tokens + token_first + o_token
        tl.store(p_out, b_energy, mask=m_token)
    i_partial = (token_first // TOKEN_BLOCK).to(tl.int64) + i_block
    tl.store(p_partial + adapter * block_total + i_partial, tl.sum(b_energy, 0))


@triton.jit(do_not_specialize=["entry_total", "left_rows", "left_stride", "right_stride"])
def lora_response_product_kernel(
    p_table,
    p_left,
    p_right,
    p_partial,
    entry_total,
    left_rows,
    left_stride,
    right_stride,
    ALIGNED: tl.constexpr,
    ROW_BLOCK: tl.constexpr,
    COLUMN_BLOCK: tl.constexpr,
):
    """Stage one of inner products: program (n, e) multiplies a block of rows and sums each row.

    Formula: partial[row] = sum over c of left[row modulo left_rows, c] * right[row, c].
    p_table: int64 [5, entry_total], by entry: first element in p_left, the same in p_right,
        rows, columns, first element in p_partial.
    p_left: float32, rows left_stride apart; they begin again after left_rows rows.
    p_right: float32, rows right_stride apart.
    p_partial: float32; `rows` elements per entry are written.
    ALIGNED: first elements and strides are multiples of 4, and so is the number of columns once
        zeros that follow a row are counted; the caller has checked it.
    Deterministic: lane k adds the columns k, k + COLUMN_BLOCK, ... in this order, then the lanes
    are reduced once.
    """
    i_entry = tl.program_id(1).to(tl.int64)
    entries = entry_total.to(tl.int64)
    first_left = tl.load(p_table + i_entry)
    first_right = tl.load(p_table + entries + i_entry)
    rows = tl.load(p_table + 2 * entries + i_entry).to(tl.int32)
    columns = tl.load(p_table + 3 * entries + i_entry).to(tl.int32)
    first_out = tl.load(p_table + 4 * entries + i_entry)
    stride_left = left_stride.to(tl.int64)
    stride_right = right_stride.to(tl.int64)
    if ALIGNED:
        # numbers read from memory carry no facts; without these every load is one element wide
        first_left = tl.multiple_of(first_left, 4)
        first_right = tl.multiple_of(first_right, 4)
        columns = tl.multiple_of((columns + 3) // 4 * 4, 4)
        stride_left = tl.multiple_of(stride_left, 4)
        stride_right = tl.multiple_of(stride_right, 4)
    o_row = tl.program_id(0) * ROW_BLOCK + tl.arange(0, ROW_BLOCK)
    o_column = tl.arange(0, COLUMN_BLOCK)
    m_row = o_row < rows
    p_l = p_left + first_left + (o_row % left_rows).to(tl.int64)[:, None] * stride_left
    p_r = p_right + first_right + o_row.to(tl.int64)[:, None] * stride_right
    b_sum = tl.zeros([ROW_BLOCK, COLUMN_BLOCK], tl.float32)
    for start in range(0, columns, COLUMN_BLOCK):
        o_c = start + o_column
        m = m_row[:, None] & (o_c < columns)[None, :]
        b_l = tl.load(p_l + o_c[None, :], mask=m, other=0.0)
        b_r = tl.load(p_r + o_c[None, :], mask=m, other=0.0)
        b_sum += b_l * b_r
    tl.store(p_partial + first_out + o_row, tl.sum(b_sum, 1), mask=m_row)


@triton.jit(do_not_specialize=["segment_total"])
def lora_response_fold_kernel(
    p_segments,
    p_partial,
    p_out,
    segment_total,
    FOLD_BLOCK: tl.constexpr,
):
    """Stage two: one program sums consecutive partial results in float64.

    p_segments: int64 [2, segment_total]: first partial result, number of them (may be 0).
    p_partial: float32, written by stage one.
    p_out: float64 [segment_total]; element program id is written.
    Deterministic: lane k adds the elements k, k + FOLD_BLOCK, ... in this order, then the lanes
    are reduced once.
    """
    i_segment = tl.program_id(0).to(tl.int64)
    first = tl.load(p_segments + i_segment)
    count = tl.load(p_segments + segment_total.to(tl.int64) + i_segment).to(tl.int32)
    o_fold = tl.arange(0, FOLD_BLOCK)
    b_sum = tl.zeros([FOLD_BLOCK], tl.float64)
    for start in range(0, count, FOLD_BLOCK):
        m = start + o_fold < count
        p = p_partial + first + start + o_fold
        b_sum += tl.load(p, mask=m, other=0.0).to(tl.float64)
    tl.store(p_out + i_segment, tl.sum(b_sum, 0))
