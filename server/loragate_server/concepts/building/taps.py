"""Taps on layers: what they are given and what comes back is shown once, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from loragate_server.adapter.adapter import ModuleRef

Shown = Callable[[Tensor, Tensor], None]
"""Called with a layer's input and the gradient of its output."""


@contextmanager
def tapped(
    layers: Mapping[ModuleRef, nn.Module], shown: Mapping[ModuleRef, Shown]
) -> Iterator[None]:
    """Inside it, a backward pass shows what every layer's weight gradient is made of.

    No weight needs a gradient for it. Inputs are kept for the backward pass as torch keeps them
    itself, so that checkpointed blocks keep nothing.
    """
    handles = []
    device = next(iter(layers.values())).weight.device if layers else torch.device("cpu")
    # with it every output needs a gradient, also where nothing before it does
    anchor = torch.zeros((), device=device, requires_grad=True)  # type: ignore[arg-type]
    try:
        for ref, layer in layers.items():
            handles.append(layer.register_forward_hook(partial(_tap, anchor, shown[ref])))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tap(
    anchor: Tensor, shown: Shown, _layer: nn.Module, given: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    if not torch.is_grad_enabled():
        return output
    tapped: Tensor = _Tap.apply(anchor, given[0], output, shown)  # type: ignore[no-untyped-call]
    return tapped


class _Tap(torch.autograd.Function):
    """Passes a layer's output on, and its gradient back."""

    @staticmethod
    def forward(ctx: Any, _anchor: Tensor, given: Tensor, output: Tensor, shown: Shown) -> Tensor:
        ctx.save_for_backward(given)
        ctx.shown = shown
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, pulled: Tensor) -> tuple[None, None, Tensor, None]:
        [given] = ctx.saved_tensors
        ctx.shown(given, pulled)
        return None, None, pulled, None
