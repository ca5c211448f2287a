"""Products in full float32: whatever the process allows itself, and without a trace after."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from loragate_kernels._gemm import full_precision, matmul_float32

CPU = torch.device("cpu")


def precision() -> tuple[str, str]:
    return (
        torch.backends.cuda.matmul.fp32_precision,
        torch.backends.mkldnn.matmul.fp32_precision,  # type: ignore[attr-defined]
    )


@pytest.fixture(params=["highest", "high", "medium"])
def process_precision(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision(before)


def test_the_settings_of_the_process_neither_reach_inside_nor_change(
    process_precision: str,
) -> None:
    before = precision()
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(64, 640, generator=generator)
    right = torch.randn(640, 32, generator=generator)
    with full_precision(CPU):
        assert precision() == ("ieee", "ieee")
        found = matmul_float32(left, right)
    assert precision() == before
    assert torch.get_float32_matmul_precision() == process_precision
    exact = left.double() @ right.double()
    assert float((found - exact).norm() / exact.norm()) < 1e-6


def test_what_raises_inside_restores_the_settings(process_precision: str) -> None:
    before = precision()
    with pytest.raises(KeyError), full_precision(CPU):
        raise KeyError
    assert precision() == before


def test_autocast_does_not_narrow_the_operands() -> None:
    left, right = torch.full((1, 1), 1.001), torch.full((1, 1), 1.001)
    with torch.autocast("cpu", dtype=torch.bfloat16), full_precision(CPU):
        assert matmul_float32(left, right) == left * right


def test_no_gradient_is_recorded() -> None:
    with full_precision(CPU):
        assert not matmul_float32(torch.ones(2, 2, requires_grad=True), torch.eye(2)).requires_grad


def test_the_last_thread_to_leave_restores_the_settings() -> None:
    both_inside, first_left = Barrier(2), Barrier(2)
    before = precision()

    def enter_first() -> None:
        with full_precision(CPU):
            both_inside.wait(10)
        first_left.wait(10)

    def leave_last() -> tuple[str, str]:
        with full_precision(CPU):
            both_inside.wait(10)
            first_left.wait(10)
            return precision()

    with ThreadPoolExecutor(2) as pool:
        first, last = pool.submit(enter_first), pool.submit(leave_last)
        first.result()
        assert last.result() == ("ieee", "ieee")
    assert precision() == before


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(0, 3, 2), (5, 0, 2), (5, 3, 0), (7, 64, 3)])
def test_sixteen_bit_operands_are_multiplied_exactly(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    n, k, m = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(n, k, generator=generator).to(dtype)
    right = torch.randn(k, m, generator=generator).to(dtype)
    with full_precision(CPU):
        found = matmul_float32(left, right)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), left.double() @ right.double(), rtol=1e-5, atol=1e-5)


def test_the_default_type_of_the_process_does_not_matter() -> None:
    left, right = torch.ones(3, 4, dtype=torch.bfloat16), torch.ones(4, 2, dtype=torch.bfloat16)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        product = matmul_float32(left, right)
    finally:
        torch.set_default_dtype(before)
    assert product.dtype == torch.float32
    assert product.tolist() == [[4.0, 4.0]] * 3
