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
)
from loragate_kernels.lora_response.adapters import stack


def adapter(rank: int = 2, d_out: int = 3, d_in: int = 4) -> LowRank:
    return LowRank(torch.ones(rank, d_in), torch.ones(d_out, rank))


GOOD = adapter()
META = LowRank(torch.ones(2, 4, device="meta"), torch.ones(3, 2, device="meta"))


def one_layer(*lengths: int, device: str = "cpu") -> LayerDirections:
    """Directions of a layer with the shape of `GOOD`, of these ranks."""
    sides = (torch.ones(sum(lengths), width, device=device) for width in (3, 4))
    return LayerDirections.low_rank(*sides, lengths)


KNOWN = Directions((one_layer(1),))


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
def test_an_adapter_that_does_not_fit_is_refused(bad: LowRank, message: str) -> None:
    layers = [[GOOD, GOOD], [GOOD, bad]]
    with pytest.raises(ValueError, match="layer 1, adapter 1: .*" + message):
        inner_products(layers, KNOWN, backend="reference")


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
        inner_products(layers, KNOWN, backend="reference")


def test_directions_that_are_empty_uneven_or_elsewhere_are_refused() -> None:
    with pytest.raises(ValueError, match="directions have no layers"):
        Directions(())
    with pytest.raises(ValueError, match="layer 1 has 2 directions, layer 0 has 1"):
        Directions((one_layer(1), one_layer(1, 1)))
    with pytest.raises(ValueError, match="directions of layer 1 are on device 'meta'"):
        Directions((one_layer(1), one_layer(1, device="meta")))


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
        inner_products([[GOOD], [GOOD]], KNOWN, backend="reference")
    with pytest.raises(ValueError, match=r"layer 0: directions are .*\[3, 4\], adapters \[3, 5\]"):
        inner_products([[adapter(d_in=5)]], KNOWN, backend="reference")
    elsewhere = Directions((one_layer(1, device="meta"),))
    with pytest.raises(ValueError, match="directions are on device 'meta', adapters on 'cpu'"):
        inner_products([[GOOD]], elsewhere, backend="reference")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 3000}, "tile must be a power of two of at least 2048, not 3000"),
        ({"tile": 1024}, "tile must be a power of two of at least 2048"),
        ({"fold_block": 8}, "fold_block must be a power of two of at least 16"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoraResponseConfig(**options)


def test_adapters_begin_where_the_kernel_may_read_sixteen_bytes_at_once() -> None:
    for ranks in ((1,), (3, 0, 5), (16, 17), (33, 4, 2, 130)):
        made = stack([adapter(rank) for rank in ranks])
        assert all(first % 4 == 0 for first in made.first)
        assert len(made.down) % 4 == len(made.up) % 4 == 0


def test_a_backend_that_cannot_run_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown: Any = "cuda"
    with pytest.raises(ValueError, match="known are reference, triton"):
        inner_products([[GOOD]], KNOWN, backend=unknown)
    monkeypatch.setattr(backend, "is_interpreted", lambda: False)
    with pytest.raises(BackendUnavailableError, match="TRITON_INTERPRET=1"):
        inner_products([[GOOD]], KNOWN, backend="triton")


def test_the_reference_never_loads_triton() -> None:
    script = (
        "import sys, torch; from loragate_kernels.lora_response import *; "
        "known = set(sys.modules); "
        "a = [[LowRank(torch.ones(1, 2), torch.ones(3, 1))]]; "
        "d = LayerDirections.low_rank(torch.ones(1, 3), torch.ones(1, 2), [1]); "
        "inner_products(a, Directions((d,)), backend='reference'); "
        "print([name for name in set(sys.modules) - known if name.startswith('triton')], "
        "'loragate_kernels.lora_response.kernel' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    assert done.stdout.split() == ["[]", "False"]
