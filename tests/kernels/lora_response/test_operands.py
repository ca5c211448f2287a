"""What is refused, and that the message names the layer, the adapter and the fault."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from loragate_kernels import BackendUnavailableError, backend
from loragate_kernels.lora_response import (
    Directions,
    LayerDirections,
    LoraResponseConfig,
    LowRank,
    inner_products,
    response_energy,
)


def adapter(rank: int = 2, d_out: int = 3, d_in: int = 4) -> LowRank:
    return LowRank(torch.ones(rank, d_in), torch.ones(d_out, rank))


GOOD = adapter()
META = LowRank(torch.ones(2, 4, device="meta"), torch.ones(3, 2, device="meta"))
X = torch.ones(4, 5)
PACKED = Directions.pack([[torch.ones(3, 4)]])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (LowRank(torch.ones(2, 4), torch.ones(3, 3)), r"ranks differ.*\(2, 4\).*\(3, 3\)"),
        (adapter(d_in=5), "d_in of down is 5, that of adapter 0 is 4"),
        (adapter(d_out=2), "d_out of up is 2, that of adapter 0 is 3"),
        (LowRank(GOOD.down.double(), GOOD.up), "down: dtype torch.float64 is not supported"),
        (LowRank(GOOD.down, GOOD.up.long()), "up: dtype torch.int64 is not supported"),
        (LowRank(torch.ones(4), GOOD.up), r"down must be a matrix, its shape is \(4,\)"),
        (LowRank(GOOD.down, torch.ones(3, 2, 1)), r"up must be a matrix.*\(3, 2, 1\)"),
        (LowRank(GOOD.down.to_sparse(), GOOD.up), "down: only strided tensors"),
        (META, "down is on device 'meta', layer 0, adapter 0 on 'cpu'"),
        (LowRank(GOOD.down, META.up), "up is on device 'meta'"),
        (LowRank(GOOD.down, GOOD.up, math.nan), "scale is nan; it must be finite"),
        (LowRank(GOOD.down, GOOD.up, -math.inf), "scale is -inf; it must be finite"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_both_operations(
    bad: LowRank, message: str
) -> None:
    layers = [[GOOD, GOOD], [GOOD, bad]]
    with pytest.raises(ValueError, match="layer 1, adapter 1: .*" + message):
        response_energy(layers, [X, X], backend="reference")
    with pytest.raises(ValueError, match="layer 1, adapter 1: .*" + message):
        inner_products(layers, PACKED, backend="reference")


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers is empty"),
        ([[]], "layer 0 has no adapters"),
        ([[GOOD], []], "layer 1 has no adapters"),
        ([[GOOD], [GOOD, GOOD]], "layer 1 has 2 adapters, layer 0 has 1.*rank 0"),
    ],
)
def test_lists_that_are_empty_or_uneven_are_refused(layers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        response_energy(layers, [X] * len(layers), backend="reference")
    with pytest.raises(ValueError, match=message):
        inner_products(layers, PACKED, backend="reference")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "0 inputs for 1 layers"),
        ([X, X], "2 inputs for 1 layers"),
        ([torch.ones(5, 4)], r"layer 0: inputs \[d_in, tokens\] is \(5, 4\).*adapters is 4"),
        ([torch.ones(4)], r"layer 0: inputs must be a matrix, its shape is \(4,\)"),
        ([X.double()], "layer 0: inputs: dtype torch.float64 is not supported"),
        ([X.to("meta")], "layer 0: inputs on device 'meta', adapters on 'cpu'"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        response_energy([[GOOD]], inputs, backend="reference")


@pytest.mark.parametrize(
    ("moments", "message"),
    [
        ([], "0 second_moments for 1 layers"),
        ([X], r"layer 0: second_moments \[d_in, d_in\] is \(4, 5\)"),
        ([torch.ones(5, 5)], r"layer 0: second_moments \[d_in, d_in\] is \(5, 5\)"),
        ([torch.eye(4).half()], "layer 0: second_moments must be float32, not torch.float16"),
        ([torch.eye(4, device="meta")], "layer 0: second_moments on device 'meta'"),
    ],
)
def test_second_moments_that_do_not_fit_are_refused(moments: list[Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        response_energy([[GOOD]], second_moments=moments, backend="reference")


def test_either_inputs_or_second_moments_are_needed() -> None:
    with pytest.raises(ValueError, match="not both or neither"):
        response_energy([[GOOD]], backend="reference")
    with pytest.raises(ValueError, match="not both or neither"):
        response_energy([[GOOD]], [X], second_moments=[torch.eye(4)], backend="reference")
    with pytest.raises(ValueError, match="per_token needs inputs"):
        response_energy(
            [[GOOD]], second_moments=[torch.eye(4)], per_token=True, backend="reference"
        )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.ones(4, 3), r"is \[d_out, d_in\] = \[4, 3\], direction 0 is \[3, 4\]"),
        ((torch.ones(3, 2), torch.ones(1, 4)), r"ranks differ.*\(3, 2\).*\(1, 4\)"),
        (torch.ones(3), "must be a matrix"),
        ((torch.ones(3, 1), torch.ones(4)), "Q must be a matrix"),
        (torch.ones(3, 4).double(), "float64 is not supported"),
        ((torch.ones(3, 1).long(), torch.ones(1, 4)), "P: dtype torch.int64 is not supported"),
        (torch.ones(3, 4).half(), "is torch.float16, direction 0 torch.float32; say which"),
        (torch.ones(3, 4, device="meta"), "is on device 'meta', direction 0 on 'cpu'"),
    ],
)
def test_a_direction_that_does_not_fit_is_refused_by_number(bad: Any, message: str) -> None:
    good = torch.ones(3, 4)
    with pytest.raises(ValueError, match="layer 1: direction 1.*" + message):
        Directions.pack([[good, good], [good, bad]])


def test_directions_that_are_empty_uneven_or_elsewhere_are_refused() -> None:
    good = torch.ones(3, 4)
    with pytest.raises(ValueError, match="layer 1: the list is empty"):
        Directions.pack([[good], []])
    with pytest.raises(ValueError, match="directions have no layers"):
        Directions.pack([])
    with pytest.raises(ValueError, match="layer 1 has 2 directions, layer 0 has 1"):
        Directions.pack([[good], [good, good]])
    with pytest.raises(ValueError, match="directions of layer 1 are on device 'meta'"):
        Directions.pack([[good], [good.to("meta")]])
    with pytest.raises(ValueError, match="float64 is not supported"):
        Directions.pack([[good]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("left", "right", "lengths", "message"),
    [
        (torch.ones(2, 3), torch.ones(2, 4), (), "lengths is empty"),
        (torch.ones(2, 3), torch.ones(2, 4), (1,), "left has 2 rows, the lengths sum to 1"),
        (torch.ones(2, 3), torch.ones(3, 4), (2,), "right has 3 rows, the lengths sum to 2"),
        (torch.ones(2, 3), torch.ones(2, 4), (3, -1), "left has 2 rows"),
        (torch.ones(3, 2).t(), torch.ones(2, 4), (2,), "left must be contiguous"),
        (torch.ones(2, 3), torch.ones(2, 4).half(), (2,), "left is torch.float32 on 'cpu', right"),
        (torch.ones(2, 3), torch.ones(2, 4, device="meta"), (2,), "right torch.float32 on 'meta'"),
        (torch.ones(2, 3).long(), torch.ones(2, 4), (2,), "left: dtype torch.int64"),
    ],
)
def test_stacked_directions_that_do_not_fit_are_refused(
    left: Tensor, right: Tensor, lengths: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LayerDirections.low_rank(left, right, lengths)


def test_directions_of_other_layers_than_the_adapters_are_refused() -> None:
    with pytest.raises(ValueError, match="directions have 1 layers, adapters 2"):
        inner_products([[GOOD], [GOOD]], PACKED, backend="reference")
    with pytest.raises(ValueError, match=r"layer 0: directions are .*\[3, 4\], adapters \[3, 5\]"):
        inner_products([[adapter(d_in=5)]], PACKED, backend="reference")
    elsewhere = Directions.pack([[torch.ones(3, 4, device="meta")]])
    with pytest.raises(ValueError, match="directions are on device 'meta', adapters on 'cpu'"):
        inner_products([[GOOD]], elsewhere, backend="reference")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"token_block": 48}, "token_block must be a power of two of at least 16, not 48"),
        ({"tile": 1024}, "tile must be a power of two of at least 2048"),
        ({"fold_block": 8}, "fold_block must be a power of two of at least 16"),
        ({"token_chunk": 100}, "token_chunk must be a multiple of token_block 64, not 100"),
        ({"token_chunk": 32}, "token_chunk must be a multiple of token_block 64, not 32"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraResponseConfig(**options)


def test_a_backend_that_cannot_run_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown: Any = "cuda"
    with pytest.raises(ValueError, match="known are reference, triton"):
        response_energy([[GOOD]], [X], backend=unknown)
    monkeypatch.setattr(backend, "is_interpreted", lambda: False)
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET=1"):
        response_energy([[GOOD]], [X], backend="triton")
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET=1"):
        inner_products([[GOOD]], PACKED, backend="triton")


def test_the_reference_never_loads_triton() -> None:
    script = (
        "import sys, torch; from loragate_kernels.lora_response import *; "
        "known = set(sys.modules); "
        "a = [[LowRank(torch.ones(1, 2), torch.ones(3, 1))]]; "
        "response_energy(a, [torch.ones(2, 2)], backend='reference'); "
        "inner_products(a, Directions.pack([[torch.ones(3, 2)]]), backend='reference'); "
        "print([name for name in set(sys.modules) - known if name.startswith('triton')], "
        "'loragate_kernels.lora_response.kernel' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == ["[]", "False"]
