"""The operation: checks the operands, chooses the backend, records how it was computed.

It never forms a delta B A. With U = Q A' and V = P' B for a direction G = P Q,
<G, s B A> = s * (sum of U * V). That is all: products that all adapters of a layer share, and
sums over the small block of each adapter.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from loragate_kernels import _gemm
from loragate_kernels._device import device_name
from loragate_kernels._gemm import full_precision
from loragate_kernels.backend import Backend, require_backend
from loragate_kernels.lora_response.adapters import (
    Layers,
    Stack,
    check_layers,
    nonfinite,
    scales_of,
    stack,
)
from loragate_kernels.lora_response.config import DEFAULT_CONFIG, LoraResponseConfig
from loragate_kernels.lora_response.directions import Directions, LayerDirections
from loragate_kernels.lora_response.reference import ReferenceEngine
from loragate_kernels.lora_response.result import InnerProducts


class Engine(Protocol):
    """What a backend computes for one layer; scales and flags are applied to its results."""

    @property
    def narrow(self) -> bool:
        """Whether bfloat16 weights are wanted as they are, where what they meet is bfloat16."""

    def products(self, made: Stack, directions: LayerDirections) -> Tensor:
        """Float64 [adapters, directions]."""

    def provenance(self) -> dict[str, str]:
        """What of the backend can change the last bits."""


def inner_products(
    layers: Layers,
    directions: Directions,
    *,
    backend: Backend,
    config: LoraResponseConfig = DEFAULT_CONFIG,
) -> InnerProducts:
    """Inner products <G_j, s_k B_k A_k> of every adapter with every direction of its layer.

    Cost: a direction of rank q is read once, q (d_in + d_out) elements, and takes
    2 q (d_in + d_out) operations per unit of rank. For SDXL (560 projections of 70 transformer
    blocks), 100 directions of rank 8 and an adapter of rank 16 that is 4.6 GB in float32, 2.3 GB
    in bfloat16, and 37 GFLOP. The block sums add 14 MFLOP.

    Accuracy: float32 products and sums, float64 over the block of an adapter and a direction:
    within 5e-6 of s ||B A|| ||G|| unless B A or P Q cancels in itself. 16-bit operands are exact
    in float32, so this holds for them too.

    Repeating a call changes no bit, nor does the order of the adapters, as far as the matrix
    library sums all elements of a product alike (those in use do). Which other adapters are in
    the call may change the last bits, for the size of the product decides how it is summed.

    Args:
        layers: [layer][adapter]; one layer is a list of one list. Rank 0 gives exactly 0.
        directions: stacked once, for the same layers in the same order.
        backend: "reference" (PyTorch, any device) or "triton" (CUDA, or the interpreter).
        config: how the Triton kernels are launched; the reference ignores it.

    Raises:
        ValueError: an operand is malformed, or the backend is unknown.
        BackendUnavailableError: the backend cannot run on this device in this process.
    """
    device = check_layers(layers)
    _check_directions(layers, directions, device)
    chosen = require_backend(backend, device)
    engine = _engine(chosen, config)
    # of the stacks this is remembered; they themselves may go
    values: list[Tensor] = []
    faults: list[Tensor] = []
    first: list[tuple[int, ...]] = []
    with full_precision(device):
        scales = scales_of(layers).unsqueeze(2)
        for adapters, known, scale in zip(layers, directions.layers, scales, strict=True):
            made = stack(adapters, narrow=engine.narrow and known.dtype == torch.bfloat16)
            values.append(engine.products(made, known) * scale)
            faults.append(made.faults)
            first.append(made.first)
        flags = nonfinite(faults, first)
    return InnerProducts(
        # a sum may be infinite instead of NaN, or zero if there was nothing to sum over
        torch.where(flags.unsqueeze(2), torch.nan, torch.stack(values)),
        flags,
        chosen,
        _provenance(chosen, device) | engine.provenance(),
    )


def _engine(backend: Backend, config: LoraResponseConfig) -> Engine:
    if backend == "triton":
        # imported late: Triton must not be loaded by those who never ask for it
        from loragate_kernels.lora_response.launch import TritonEngine

        return TritonEngine(config)
    return ReferenceEngine()


def _provenance(backend: Backend, device: torch.device) -> dict[str, str]:
    made = {"backend": backend, "torch": torch.__version__, "device": device_name(device)}
    if device.type == "cpu":
        # libraries split products by threads, and widen 16-bit operands tile by tile
        made["threads"] = str(torch.get_num_threads())
        made["widen_tile"] = str(_gemm.TILE_ELEMENTS)
    return made | {"gemm": "float32 sums, no tf32"}


def _check_directions(layers: Layers, directions: Directions, device: torch.device) -> None:
    if len(directions.layers) != len(layers):
        raise ValueError(f"directions have {len(directions.layers)} layers, adapters {len(layers)}")
    if directions.device != device:
        raise ValueError(f"directions are on device '{directions.device}', adapters on '{device}'")
    for number, (adapters, known) in enumerate(zip(layers, directions.layers, strict=True)):
        shape = adapters[0].up.shape[0], adapters[0].down.shape[1]
        if shape != (known.d_out, known.d_in):
            raise ValueError(
                f"layer {number}: directions are [d_out, d_in] = {[known.d_out, known.d_in]}, "
                f"adapters {list(shape)}"
            )
