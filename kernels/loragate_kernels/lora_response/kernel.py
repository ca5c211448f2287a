"""The two kernels of `lora_response`: sums of rows, and a fold of what they leave.

The products that all adapters of a layer share are made before, by a library; these kernels
reduce the small block that belongs to each adapter. No atomics and no tuning at run time: the
order of every sum follows from the constants alone, so results repeat bit for bit.
"""

# Triton reads parameter annotations itself, so they stay objects: no `annotations` future here.
import triton
import triton.language as tl


@triton.jit(do_not_specialize=["entry_total", "left_stride", "right_stride"])
def lora_response_product_kernel(
    p_table,
    p_left,
    p_right,
    p_partial,
    entry_total,
    left_stride,
    right_stride,
    ROW_BLOCK: tl.constexpr,
    COLUMN_BLOCK: tl.constexpr,
):
    """Stage one of inner products: program (n, e) multiplies a block of rows and sums each row.

    Formula: partial[row] = sum over c of left[row, c] * right[row, c].
    p_table: int64 [5, entry_total], by entry: first element in p_left, the same in p_right,
        rows, columns, first element in p_partial.
    p_left, p_right: float32, rows left_stride and right_stride apart.
    p_partial: float32; `rows` elements per entry are written.
    First elements and strides are multiples of 4, and so is the number of columns once the zeros
    that follow a row are counted: stacks are made like that.
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
    # numbers read from memory carry no facts; without these every load is one element wide
    first_left = tl.multiple_of(first_left, 4)
    first_right = tl.multiple_of(first_right, 4)
    columns = tl.multiple_of((columns + 3) // 4 * 4, 4)
    stride_left = tl.multiple_of(stride_left, 4)
    stride_right = tl.multiple_of(stride_right, 4)
    o_row = tl.program_id(0) * ROW_BLOCK + tl.arange(0, ROW_BLOCK)
    o_column = tl.arange(0, COLUMN_BLOCK)
    m_row = o_row < rows
    p_l = p_left + first_left + o_row.to(tl.int64)[:, None] * stride_left
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
