"""The weight deltas themselves: LoRA, Tucker LoRA, DoRA, LoHa, LoKr and changes kept whole.

All arithmetic is float32; a response is given in the dtype that the layer's output has. Strength
multiplies the scale, as `set_adapters` of diffusers does. W is the layer's weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from loragate_server.adapter.delta import LayerShape, WeightDelta


@dataclass(frozen=True)
class LowRank:
    """LoRA: scale * up @ down; of a convolution, `up` is 1 x 1 and `down` has the kernel.

    Attributes:
        down: [r, in] or [r, in, kh, kw].
        up: [out, r] or [out, r, 1, 1].
        scale: alpha / r, or what the adapter's configuration makes of it.
        mid: [r, r, kh, kw] of a Tucker decomposition, whose `down` is 1 x 1 then; or None.
        bias: [out], added to the output with the same scale; or None. `dense` does not hold it.
    """

    down: Tensor
    up: Tensor
    scale: float
    mid: Tensor | None = None
    bias: Tensor | None = None

    @property
    def rank(self) -> int | None:
        """The inner dimension r."""
        return int(self.down.shape[0])

    def response(self, module_input: Tensor, layer: LayerShape, strength: float) -> Tensor:
        """scale * strength * (up(down(x)) + bias)."""
        x = module_input.float()
        if self.down.dim() == 2:
            result = functional.linear(functional.linear(x, self.down), self.up, self.bias)
        elif self.mid is None:
            inner = functional.conv2d(x, self.down, None, layer.stride, layer.padding)
            result = functional.conv2d(inner, self.up, self.bias)
        else:
            inner = functional.conv2d(x, self.down)
            inner = functional.conv2d(inner, self.mid, None, layer.stride, layer.padding)
            result = functional.conv2d(inner, self.up, self.bias)
        return (result * (self.scale * strength)).to(module_input.dtype)

    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """scale * strength * up @ down, in the weight's shape."""
        return _shaped(self.product(), layer.weight) * (self.scale * strength)

    def product(self) -> Tensor:
        """up @ down without its scale: [out, in] or [out, in, kh, kw]."""
        if self.mid is not None:
            inner = torch.einsum("ijhw,jc->ichw", self.mid, self.down.flatten(1))
            return torch.einsum("oi,ichw->ochw", self.up.flatten(1), inner)
        flat = self.up.flatten(1) @ self.down.flatten(1)
        return flat.reshape(len(flat), *self.down.shape[1:])


class ThroughWeight(ABC):
    """A delta whose response is the layer run with the changed weight in place of its own."""

    @abstractmethod
    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """W' - W, float32 in the weight's shape."""

    @property
    def rank(self) -> int | None:
        """None: the change is dense."""
        return None

    def response(self, module_input: Tensor, layer: LayerShape, strength: float) -> Tensor:
        """The layer without its bias, run with the delta as its weight."""
        delta = self.dense(layer, strength)
        return _run(module_input.float(), delta, layer).to(module_input.dtype)


@dataclass(frozen=True)
class Hadamard(ThroughWeight):
    """LoHa: scale * (w1_a @ w1_b) * (w2_a @ w2_b), elementwise between the two products.

    The factors are kept instead of the product, which is as large as the layer itself.

    Attributes:
        first, second: (a, b) with a [out, r] and b [r, in * kh * kw]; with a core t
            [r, r, kh, kw]: (a, b, t) with a [r, out] and b [r, in].
        scale: alpha / r.
        rows: which rows of the product belong to this layer, where a file holds several at once.
    """

    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]
    scale: float
    rows: slice = field(default_factory=lambda: slice(None))

    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """The product of both halves, scaled."""
        return _shaped(self.product()[self.rows], layer.weight) * (self.scale * strength)

    def product(self) -> Tensor:
        """Both halves multiplied, without scale, all rows."""
        return _half(self.first) * _half(self.second)


@dataclass(frozen=True)
class Kronecker(ThroughWeight):
    """LoKr: scale * kron(w1, w2).

    Attributes:
        left: (w1,) [a, b] or its factors (w1_a, w1_b).
        right: (w2,) [c, d] or [c, d, kh, kw]; its factors (w2_a [c, r], w2_b [r, d * kh * kw]); or
            with a core (w2_a [r, c], w2_b [r, d], t2 [r, r, kh, kw]).
        scale: alpha / r.
        rows: as in `Hadamard`.
    """

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]
    scale: float
    rows: slice = field(default_factory=lambda: slice(None))

    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """The Kronecker product, scaled."""
        return _shaped(self.product()[self.rows], layer.weight) * (self.scale * strength)

    def halves(self) -> tuple[Tensor, Tensor]:
        """What the product is made of: its norm is the product of theirs."""
        return _whole(self.left), _whole(self.right)

    def product(self) -> Tensor:
        """The Kronecker product without scale, all rows."""
        left, right = self.halves()
        if right.dim() == 4:
            left = left[:, :, None, None]
        return torch.kron(left, right.contiguous())


@dataclass(frozen=True)
class Whole(ThroughWeight):
    """A change that a file holds as it is, weight by weight: what LyCORIS calls full or diff.

    Attributes:
        weight: as the layer's own, without a scale.
        scale: by which it is multiplied; loaders use 1.
        bias: [out], added to the output with the same scale; or None. `dense` does not hold it.
        rows: as in `Hadamard`.
    """

    weight: Tensor
    scale: float
    bias: Tensor | None = None
    rows: slice = field(default_factory=lambda: slice(None))

    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """The change, scaled."""
        return _shaped(self.product()[self.rows], layer.weight) * (self.scale * strength)

    def product(self) -> Tensor:
        """The change without scale, all rows."""
        return self.weight

    def response(self, module_input: Tensor, layer: LayerShape, strength: float) -> Tensor:
        """The layer run with the change in place of its weight, and the change of its bias."""
        changed = _run(module_input.float(), self.dense(layer, strength), layer)
        if self.bias is not None:
            bias = self.bias[self.rows] * (self.scale * strength)
            changed = changed + (bias if layer.weight.dim() == 2 else bias[:, None, None])
        return changed.to(module_input.dtype)


@dataclass(frozen=True)
class Dora(ThroughWeight):
    """DoRA: W' = m * (W + D) / ||W + D||, D = strength * scale * up @ down, norms per output.

    https://arxiv.org/abs/2402.09353, section 4, as peft computes it: strength enters D, also below
    the fraction line, so that a strength of 0 need not mean no change.

    Attributes:
        lora: D.
        magnitude: [out].
    """

    lora: LowRank
    magnitude: Tensor

    @property
    def rank(self) -> int | None:
        """None: rescaling the rows of W changes it in every direction."""
        return None

    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """W' - W."""
        weight = layer.weight.detach().float()
        directed = weight + self.lora.dense(layer, strength)
        norm = directed.flatten(1).norm(dim=1)
        factor = (self.magnitude / norm).reshape(-1, *(1 for _ in weight.shape[1:]))
        change: Tensor = factor * directed - weight
        return change


def changed_bias(delta: WeightDelta) -> Tensor | None:
    """What a delta adds to the layer's bias, without scale and for all rows; None for nothing."""
    return delta.bias if isinstance(delta, LowRank | Whole) else None


def _shaped(product: Tensor, weight: Tensor) -> Tensor:
    fits = len(product) == len(weight) and product.numel() == weight.numel()
    if not fits or (product.dim() == weight.dim() and product.shape != weight.shape):
        raise ValueError(
            f"a delta of shape {tuple(product.shape)} does not fit a weight of shape "
            f"{tuple(weight.shape)}"
        )
    return product.reshape(weight.shape)


def _half(factors: tuple[Tensor, ...]) -> Tensor:
    if len(factors) == 2:
        return factors[0] @ factors[1]
    a, b, core = factors
    return torch.einsum("ijkl,jr,ip->prkl", core, b, a)


def _whole(factors: tuple[Tensor, ...]) -> Tensor:
    return factors[0] if len(factors) == 1 else _half(factors)


def _run(x: Tensor, weight: Tensor, layer: LayerShape) -> Tensor:
    if weight.dim() == 2:
        return functional.linear(x, weight)
    return functional.conv2d(
        x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups
    )
