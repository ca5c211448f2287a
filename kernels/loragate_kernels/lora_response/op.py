"""The two operations: check the operands, choose the backend, record how it was computed.

Neither ever forms a delta B A. With U = A X for inputs X and R such that R'R = B'B,
||s B A X||^2 = s^2 ||R U||^2; with U = Q A' and V = P' B for a direction G = P Q,
<G, s B A> = s * (sum of U * V). That is all: products that all adapters of a layer share, and
sums over the small block of each adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    check_matrix,
    nonfinite,
    scales_of,
    stack,
)
from loragate_kernels.lora_response.config import DEFAULT_CONFIG, LoraResponseConfig
from loragate_kernels.lora_response.directions import DirectionBlock, Directions, LayerDirections
from loragate_kernels.lora_response.reference import ReferenceEngine
from loragate_kernels.lora_response.result import InnerProducts, ResponseEnergy


class Engine(Protocol):
    """What a backend computes for one layer; scales and flags are applied to its results."""

    @property
    def narrow(self) -> bool:
        """Whether bfloat16 weights are wanted as they are, where what they meet is bfloat16."""

    def energies(self, made: Stack, inputs: Tensor, per_token: bool) -> tuple[Tensor, Tensor]:
        """Float64 [adapters], and [adapters, tokens] (without tokens unless `per_token`)."""

    def moment_energies(self, made: Stack, moment: Tensor) -> Tensor:
        """Float64 [adapters]."""

    def products(self, made: Stack, block: DirectionBlock) -> Tensor:
        """Float64 [adapters, directions of the block]."""

    def provenance(self) -> dict[str, str]:
        """What of the backend can change the last bits."""


def response_energy(
    layers: Layers,
    inputs: Sequence[Tensor] | None = None,
    *,
    second_moments: Sequence[Tensor] | None = None,
    per_token: bool = False,
    backend: Backend,
    config: LoraResponseConfig = DEFAULT_CONFIG,
) -> ResponseEnergy:
    """Local response energies ||s B A X||^2 of many adapters at the inputs of a base model.

    First order: every layer sees the inputs it has in the base model. How far activations move
    when all layers are adapted is another number, and `pair_stats` measures it.

    Accuracy: 5e-6 relative to an all-float64 computation. "reference" is one. "triton" computes
    A X and R (A X) in float32, so where A X is much smaller than |A| |X| the error is relative
    to what has cancelled. 16-bit inputs are exact in float32 and get the same accuracy.
    The R of "triton" comes from B'B, which adds about 1e-11 of the energy that there would be if
    nothing cancelled in B.
    From second moments the error is relative to s^2 ||R A||^2 ||C||.

    Args:
        layers: [layer][adapter]; one layer is a list of one list. An adapter of rank 0 has
            energy 0, exactly.
        inputs: X of each layer, [d_in, tokens], float32, bfloat16 or float16.
        second_moments: instead of `inputs`: C = X X' of each layer, float32 [d_in, d_in],
            positive semidefinite. The cost is then independent of the number of tokens. What
            rounding makes negative is returned as 0.
        per_token: also return the energy of each token; needs `inputs`.
        backend: "reference" (PyTorch, any device) or "triton" (CUDA, or the interpreter).
        config: how the Triton kernels are launched; the reference ignores it.

    Raises:
        ValueError: an operand is malformed, or the backend is unknown.
        BackendUnavailableError: the backend cannot run on this device in this process.
    """
    device = check_layers(layers)
    operands = _check_operands(layers, inputs, second_moments, per_token, device)
    chosen = require_backend(backend, device)
    engine = _engine(chosen, config)
    totals: list[Tensor] = []
    tokens: list[Tensor] = []
    seen = _Seen()
    with full_precision(device):
        squares = scales_of(layers).square()
        for adapters, operand, square in zip(layers, operands, squares, strict=True):
            made = stack(adapters, narrow=engine.narrow and operand.dtype == torch.bfloat16)
            if inputs is None:
                total = engine.moment_energies(made, operand).clamp(min=0.0)
            else:
                total, each = engine.energies(made, operand.detach(), per_token)
                tokens.append(each * square.unsqueeze(1))
            totals.append(total * square)
            seen.add(made)
        flags = seen.nonfinite()
    settled = zip(tokens, flags, strict=True) if per_token else ()
    return ResponseEnergy(
        _settled(torch.stack(totals), flags),
        tuple(_settled(each, flag) for each, flag in settled) if per_token else None,
        flags,
        chosen,
        _provenance(chosen, device) | engine.provenance(),
    )


def inner_products(
    layers: Layers,
    directions: Directions,
    *,
    per_layer: bool = False,
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
        directions: packed once, for the same layers in the same order.
        per_layer: return [layers, adapters, directions] instead of the sum over layers.
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
    values: list[Tensor] = []
    seen = _Seen()
    with full_precision(device):
        scales = scales_of(layers).unsqueeze(2)
        for adapters, packed, scale in zip(layers, directions.layers, scales, strict=True):
            made = stack(adapters, narrow=engine.narrow and packed.dtype == torch.bfloat16)
            found = _all_products(engine, made, packed) * scale
            seen.add(made)
            if per_layer or not values:
                values.append(found)
            else:
                # one layer after the other: an order that no library chooses
                values[0] += found
        flags = seen.nonfinite()
    return InnerProducts(
        _settled(torch.stack(values), flags)
        if per_layer
        else _settled(values[0], flags.any(dim=0)),
        flags,
        chosen,
        _provenance(chosen, device) | engine.provenance(),
    )


def _all_products(engine: Engine, made: Stack, packed: LayerDirections) -> Tensor:
    """Float64 [adapters, directions], in the order in which the directions were given."""
    found = [engine.products(made, block) for block in packed.blocks]
    if len(found) == 1:
        return found[0]
    slots = [slot for block in packed.blocks for slot in block.slots]
    order = sorted(range(len(slots)), key=slots.__getitem__)
    return torch.cat(found, dim=1)[:, order]


class _Seen:
    """What has to be remembered of the stacks of all layers; the stacks themselves may go."""

    def __init__(self) -> None:
        self._faults: list[Tensor] = []
        self._first: list[tuple[int, ...]] = []

    def add(self, made: Stack) -> None:
        """Notes the stack of the next layer."""
        self._faults.append(made.faults)
        self._first.append(made.first)

    def nonfinite(self) -> Tensor:
        """Bool [layers, adapters]."""
        return nonfinite(self._faults, self._first)


def _settled(values: Tensor, flags: Tensor) -> Tensor:
    """`values` [*flags.shape, ...] with NaN for adapters whose weights are not finite.

    A sum may be infinite instead of NaN, or zero if there was nothing to sum over.
    """
    wide = flags.reshape(*flags.shape, *[1] * (values.dim() - flags.dim()))
    return torch.where(wide, torch.nan, values)


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


def _check_operands(
    layers: Layers,
    inputs: Sequence[Tensor] | None,
    second_moments: Sequence[Tensor] | None,
    per_token: bool,
    device: torch.device,
) -> Sequence[Tensor]:
    """Whichever of `inputs` and `second_moments` was given, checked."""
    if inputs is not None and second_moments is None:
        operands, name = inputs, "inputs"
    elif second_moments is not None and inputs is None:
        operands, name = second_moments, "second_moments"
    else:
        raise ValueError("give either inputs or second_moments, not both or neither")
    if per_token and inputs is None:
        raise ValueError("second moments know no tokens: per_token needs inputs")
    if len(operands) != len(layers):
        raise ValueError(f"{len(operands)} {name} for {len(layers)} layers; one each is needed")
    for number, (adapters, operand) in enumerate(zip(layers, operands, strict=True)):
        check_matrix(f"layer {number}: {name}", operand)
        d_in = adapters[0].down.shape[1]
        if operand.shape[0] != d_in or (inputs is None and operand.shape[1] != d_in):
            wanted = "[d_in, tokens]" if inputs is not None else "[d_in, d_in]"
            raise ValueError(
                f"layer {number}: {name} {wanted} is {tuple(operand.shape)}, d_in of the "
                f"adapters is {d_in}"
            )
        if inputs is None and operand.dtype != torch.float32:
            raise ValueError(f"layer {number}: {name} must be float32, not {operand.dtype}")
        if operand.device != device:
            raise ValueError(
                f"layer {number}: {name} on device '{operand.device}', adapters on '{device}'"
            )
    return operands


def _check_directions(layers: Layers, directions: Directions, device: torch.device) -> None:
    if len(directions.layers) != len(layers):
        raise ValueError(f"directions have {len(directions.layers)} layers, adapters {len(layers)}")
    if directions.device != device:
        raise ValueError(f"directions are on device '{directions.device}', adapters on '{device}'")
    for number, (adapters, packed) in enumerate(zip(layers, directions.layers, strict=True)):
        shape = adapters[0].up.shape[0], adapters[0].down.shape[1]
        if shape != (packed.d_out, packed.d_in):
            raise ValueError(
                f"layer {number}: directions are [d_out, d_in] = {[packed.d_out, packed.d_in]}, "
                f"adapters {list(shape)}"
            )
