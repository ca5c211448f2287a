"""How much memory gradients take, predicted from shapes by following the passes on `meta`."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.concepts.building.dense import differentiable
from loragate_server.concepts.building.lean import checkpointed, loss_of
from loragate_server.concepts.building.memory.live import LiveBytes, bytes_of, fused_attention
from loragate_server.concepts.building.memory.twin import (
    META,
    rows_of,
    twin_of,
    without_numbers,
)
from loragate_server.concepts.building.sketch import Layer, Sketch, Widths, shape_of
from loragate_server.concepts.building.stratum import layers_of, weights_of
from loragate_server.concepts.building.taps import tapped
from loragate_server.models.base import BaseModel, Conditioning

_PROMPT = "a picture"
_STORED_BYTES = 2
"""Of a number of a direction: float16."""

_GAPS = {"cpu": 0.35, "cuda": 0.1}
"""What no tensor shows, as a share of the work: pieces between tensors that nobody can use, and on
a CPU what convolutions copy. Measured on a CPU; on a GPU it is a guess on the safe side."""
_SCRATCH_BYTES = {"cuda": 256 << 20}
"""Of the libraries on a GPU. Its context is there already, with the base model."""


@dataclass(frozen=True)
class Need:
    """Bytes on the device at the moments that matter.

    Attributes:
        weights: the whole base model.
        passes: the denoiser's passes, and what stays on the device while they last.
        encoders: the passes of the text encoders, and what stays while they last.
        after: base model and directions of all concepts, when the work is done.
        rows: rows of one pass.
        away: whether text encoders and VAE leave the device while the denoiser works.
    """

    weights: int
    passes: int
    encoders: int
    after: int
    rows: int
    away: bool = False

    @property
    def peak(self) -> int:
        """The most of all."""
        return max(self.passes, self.encoders, self.after)


@dataclass(frozen=True)
class Shapes:
    """What the sizes follow from.

    Attributes:
        base: the base model, on any device.
        twin: its denoiser on `meta`.
        told: what one row is told, on `meta`.
        latent: shape of a latent [c, h, w].
        rows: rows of a gradient.
        directions: bytes of the directions of all concepts.
        encoding: bytes that the text encoders' passes take beside weights, for one prompt.
        encoded: bytes of it that are kept for the way back.
    """

    base: BaseModel
    twin: BaseModel
    told: Conditioning
    latent: tuple[int, ...]
    rows: int
    directions: int
    encoding: int
    encoded: int

    @classmethod
    def of(cls, base: BaseModel, latent: tuple[int, ...], rows: int, directions: int) -> Shapes:
        """Of a base model that is loaded: one prompt goes through its text encoders.

        Nobody else may use the model meanwhile; the predictions themselves leave it alone.
        """
        others = {
            ref: layer
            for ref, layer in layers_of(base).items()
            if ref.component != base.denoiser_component
        }
        ignored = dict.fromkeys(others, _ignore)
        with torch.enable_grad(), LiveBytes() as live, tapped(others, ignored):
            told = base.encode_prompts([_PROMPT])
            encoded = live.now
        return cls(
            base, twin_of(base), without_numbers(told), latent, rows, directions, live.peak, encoded
        )

    @property
    def weights(self) -> int:
        """Bytes of the whole base model."""
        return bytes_of(self.base.denoiser) + self.beside

    @property
    def beside(self) -> int:
        """Bytes of what the denoiser does without."""
        return bytes_of(*self.base.beside().values())


def needed_bytes(need: Need, device: torch.device) -> int:
    """What a device has to have for it: the peak of all tensors, and what goes between them."""
    gaps = int(_GAPS.get(device.type, 0.1) * (need.peak - need.weights))
    return need.peak + gaps + _SCRATCH_BYTES.get(device.type, 0)


def directions_bytes(base: BaseModel, rank: int, gradients: int) -> int:
    """Bytes of so many gradients of all layers, as they are kept."""
    lengths = sum(sum(shape_of(layer)) for layer in layers_of(base).values())
    return lengths * rank * gradients * _STORED_BYTES


def lean_need(shapes: Shapes, widths: Widths, at_once: int) -> Need:
    """What the lean way needs with micro-batches of so many rows, and all on the device."""
    twin = shapes.twin
    layers = layers_of(twin)
    others = [ref for ref in layers_of(shapes.base) if ref not in layers]
    rows = rows_of(twin, shapes.latent, at_once)
    with LiveBytes() as live, fused_attention():
        sketches = {ref: Sketch(layer, widths, META) for ref, layer in layers.items()}
        shown = {ref: sketch.add for ref, sketch in sketches.items()}
        leaves = {name: each.float().requires_grad_() for name, each in shapes.told.tensors.items()}
        with checkpointed(twin.denoiser), tapped(layers, shown):
            torch.autograd.backward(loss_of(twin, rows, slice(0, at_once), shapes.told, leaves))
    of_others = _sketches_bytes(shapes.base, others, widths)
    every = shapes.weights
    kept = shapes.directions if shapes.base.device.type == "cpu" else 0
    sketched = _sketches_bytes(twin, list(layers), widths) + of_others
    return Need(
        weights=every,
        passes=every + live.peak + of_others + kept,
        encoders=every + sketched + shapes.encoding + kept,
        after=every + shapes.directions,
        rows=at_once,
    )


def dense_need(shapes: Shapes) -> Need:
    """What the dense way needs."""
    twin = shapes.twin
    weights = list(weights_of(twin).values())
    rows = rows_of(twin, shapes.latent, shapes.rows)
    with LiveBytes() as live, fused_attention(), differentiable(weights):
        loss = loss_of(twin, rows, slice(0, shapes.rows), shapes.told, shapes.told.tensors)
        made = torch.autograd.grad(loss, weights, allow_unused=True)
        del made
    whole = [weight.nbytes for weight in weights_of(shapes.base).values()]
    of_others = sum(whole) - sum(weight.nbytes for weight in weights)
    largest = max(weight.numel() for weight in weights_of(shapes.base).values())
    every = shapes.weights
    kept = shapes.directions if shapes.base.device.type == "cpu" else 0
    # compressing holds the gradient twice more in float32: as it is, and at unit norm
    cutting = every + sum(whole) + 2 * 4 * largest + kept
    denoising = live.peak + of_others + shapes.encoded
    passes = every + max(denoising, shapes.encoding) + kept
    return Need(
        weights=every,
        passes=max(passes, cutting),
        encoders=every,
        after=every + shapes.directions,
        rows=shapes.rows,
    )


def _sketches_bytes(base: BaseModel, refs: list[ModuleRef], widths: Widths) -> int:
    layers: dict[ModuleRef, Layer] = layers_of(base)
    return sum(Sketch(layers[ref], widths, META).nbytes for ref in refs)


def _ignore(given: torch.Tensor, pulled: torch.Tensor) -> None:
    """Nothing comes back in a forward pass."""
    del given, pulled
