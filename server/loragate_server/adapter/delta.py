"""Weight deltas: every kind of adapter, once understood, is one of these per layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class WeightDelta(Protocol):
    """The change that an adapter makes to one linear or convolutional layer."""

    @property
    def rank(self) -> int | None:
        """Rank of the change, or None where it is dense."""
        ...

    def response(self, module_input: Tensor, layer: LayerShape, strength: float) -> Tensor:
        """What the change adds to the layer's output for this input, at this strength.

        `module_input` is what the layer itself was given; the result has the shape and dtype of
        the layer's output.
        """
        ...

    def dense(self, layer: LayerShape, strength: float) -> Tensor:
        """The change as a float32 tensor of the weight's shape: W' - W at this strength."""
        ...


@dataclass(frozen=True)
class LayerShape:
    """The layer a delta belongs to: its weight (needed by DoRA) and its convolution settings.

    Attributes:
        weight: [out, in] or [out, in, kh, kw].
        stride, padding, dilation, groups: as in `torch.nn.Conv2d`; ignored by linear layers.
    """

    weight: Tensor
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
