"""Whether the factors of a layer fit it, also where they are written with other dimensions."""

from __future__ import annotations

from torch import Tensor

from loragate_server.adapter.delta import LayerShape


def like_layer(layer: LayerShape, down: Tensor, up: Tensor) -> tuple[Tensor, Tensor] | None:
    """The factors in the number of dimensions that the layer's weight has.

    A 1 x 1 convolution and a linear layer are the same; trainers write the factors of one as those
    of the other. Loaders that multiply the factors and give the product the weight's shape take
    both; diffusers and peft do not, see `written_as_layer`.

    Returns:
        down [r, in] and up [out, r] of a linear layer, [r, in, kh, kw] and [out, r, 1, 1] of a
        convolution; None where they do not fit.
    """
    weight = layer.weight.shape
    ones = (1,) * (len(weight) - 2)
    plain = layer.groups == 1 and set(layer.dilation) == {1}
    if not plain or not down.dim() or not len(down):
        return None
    if down.shape == (len(down), *weight[1:]) and up.shape == (weight[0], len(down), *ones):
        return down, up
    if {*weight[2:], *down.shape[2:], *up.shape[2:]} != {1}:
        return None
    if down.shape[:2] != (len(down), weight[1]) or up.shape[:2] != (weight[0], len(down)):
        return None
    return down.reshape(len(down), weight[1], *ones), up.reshape(weight[0], len(down), *ones)


def written_as_layer(layer: LayerShape, down: Tensor, up: Tensor) -> bool:
    """Whether the factors have as many dimensions as the layer's weight."""
    return down.dim() == up.dim() == layer.weight.dim()
