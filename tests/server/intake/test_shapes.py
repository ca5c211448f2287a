"""Factors of a linear layer serve a 1 x 1 convolution, and no larger one."""

from __future__ import annotations

import pytest
import torch

from loragate_server.adapter.algebra import LowRank, Whole
from loragate_server.adapter.delta import LayerShape
from loragate_server.intake.shapes import like_layer, written_as_layer


def layer(*shape: int, groups: int = 1) -> LayerShape:
    return LayerShape(torch.randn(shape, generator=torch.Generator().manual_seed(1)), groups=groups)


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1)])
@pytest.mark.parametrize("down", [(2, 5), (2, 5, 1, 1)])
@pytest.mark.parametrize("up", [(6, 2), (6, 2, 1, 1)])
def test_factors_are_brought_to_the_layer_and_keep_their_product(
    shape: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]
) -> None:
    own, given = layer(*shape), (torch.randn(down), torch.randn(up))
    fitted = like_layer(own, *given)
    assert fitted is not None
    assert written_as_layer(own, *fitted)
    assert written_as_layer(own, *given) == (len(down) == len(up) == len(shape))
    product = LowRank(*fitted, scale=1.0).dense(own, 1.0)
    assert torch.allclose(product.flatten(1), given[1].flatten(1) @ given[0].flatten(1))


@pytest.mark.parametrize(
    ("shape", "down", "up"),
    [
        ((6, 5, 3, 3), (2, 5), (6, 2)),
        ((6, 5), (2, 5, 3, 3), (6, 2, 1, 1)),
        ((6, 5, 1, 1), (2, 5, 1, 1), (6, 2, 3, 3)),
        ((6, 5), (2, 4), (6, 2)),
        ((6, 5), (2, 5), (5, 2)),
        ((6, 5), (2, 5), (6, 3)),
        ((6, 5), (10,), (6, 2)),
    ],
)
def test_what_does_not_fit_is_not_brought_to_fit(
    shape: tuple[int, ...], down: tuple[int, ...], up: tuple[int, ...]
) -> None:
    assert like_layer(layer(*shape), torch.ones(down), torch.ones(up)) is None


def test_a_convolution_in_groups_takes_no_factors() -> None:
    assert like_layer(layer(6, 5, 1, 1, groups=2), torch.ones(2, 5), torch.ones(6, 2)) is None


def test_a_whole_change_gives_what_the_changed_layer_gives() -> None:
    torch.manual_seed(2)
    module = torch.nn.Conv2d(3, 4, 3, stride=2, padding=1)
    change, bias, x = torch.randn(4, 3, 3, 3), torch.randn(4), torch.randn(2, 3, 8, 8)
    own = LayerShape(module.weight, stride=(2, 2), padding=(1, 1))
    before = module(x)
    with torch.no_grad():
        response = Whole(change, 1.0, bias).response(x, own, 0.5)
        module.weight += 0.5 * change
        assert module.bias is not None
        module.bias += 0.5 * bias
        assert torch.allclose(before + response, module(x), atol=1e-5)
