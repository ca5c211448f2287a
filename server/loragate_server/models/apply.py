"""Applies weight deltas to chosen rows of a forward pass, without changing the model.

The base model's output is computed for the whole batch as it always is; a forward hook on each
changed layer then adds the delta's response to the adapted rows and to nothing else. So the base
rows are the base model's, bit for bit, and a delta of zero leaves its rows equal to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.adapter.delta import LayerShape, WeightDelta
from loragate_server.adapter.reference import Strength
from loragate_server.models.base import BaseModel


@dataclass(frozen=True)
class RowPlan:
    """One adapter on some rows of the denoiser's batch.

    Attributes:
        rows: contiguous rows, with start and stop; step is not allowed.
        deltas: the adapter's deltas; those outside the denoiser are not used here.
        strength: its `denoiser` part is used.
    """

    rows: slice
    deltas: Mapping[ModuleRef, WeightDelta]
    strength: Strength


@dataclass(frozen=True)
class _Addition:
    rows: slice | None
    delta: WeightDelta
    strength: float


def layer_shape(module: nn.Module) -> LayerShape:
    """What a delta must know of a linear or convolutional layer.

    Raises:
        TypeError: the layer is neither, or pads in another way than with a number of zeros.
    """
    if isinstance(module, nn.Linear):
        return LayerShape(module.weight)
    if isinstance(module, nn.Conv2d) and not isinstance(module.padding, str):
        return LayerShape(
            module.weight,
            stride=(module.stride[0], module.stride[1]),
            padding=(module.padding[0], module.padding[1]),
            dilation=(module.dilation[0], module.dilation[1]),
            groups=module.groups,
        )
    raise TypeError(f"a weight delta cannot be applied to a {type(module).__name__}")


@contextmanager
def adapted_rows(base: BaseModel, plans: Sequence[RowPlan]) -> Iterator[None]:
    """Inside it, every forward of the denoiser gives the adapted output on the rows of each plan.

    Plans may share rows: their responses, each computed from the base weight, are added up.

    Raises:
        ValueError: a plan's rows are not a plain, non-negative range.
        IndexError: raised by a forward pass whose batch is smaller than a plan's rows.
    """
    additions: dict[str, list[_Addition]] = {}
    for plan in plans:
        _check_rows(plan.rows)
        for ref, delta in plan.deltas.items():
            if ref.component == base.denoiser_component:
                addition = _Addition(plan.rows, delta, plan.strength.denoiser)
                additions.setdefault(ref.module, []).append(addition)
    with _hooked((base.denoiser, name, every) for name, every in additions.items()):
        yield


@contextmanager
def adapted_text(
    base: BaseModel, deltas: Mapping[ModuleRef, WeightDelta], strength: Strength
) -> Iterator[None]:
    """Inside it, the text encoders give the adapted output on all rows.

    Deltas of the denoiser are not used. Several adapters are applied by entering several contexts.
    """
    with _hooked(
        (
            base.components[ref.component],
            ref.module,
            [_Addition(None, delta, strength.text_encoder)],
        )
        for ref, delta in deltas.items()
        if ref.component != base.denoiser_component
    ):
        yield


def _check_rows(rows: slice) -> None:
    if rows.step not in (None, 1) or rows.start is None or rows.stop is None:
        raise ValueError(f"rows must be contiguous with a start and a stop, not {rows}")
    if not 0 <= rows.start <= rows.stop:
        raise ValueError(f"rows must be a non-negative range, not {rows}")


@contextmanager
def _hooked(
    additions: Iterable[tuple[nn.Module, str, Sequence[_Addition]]],
) -> Iterator[None]:
    handles = []
    try:
        for root, name, every in additions:
            module = root.get_submodule(name)
            hook = _Hook(layer_shape(module), every)
            # First of all hooks, so that whoever watches the layer sees the adapted output.
            handles.append(module.register_forward_hook(hook, prepend=True, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Hook:
    def __init__(self, layer: LayerShape, additions: Sequence[_Addition]) -> None:
        self._layer = layer
        self._additions = additions

    def __call__(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
    ) -> None:
        given: Tensor = args[0] if args else kwargs["input"]
        for addition in self._additions:
            rows = addition.rows or slice(0, len(output))
            if rows.stop > len(output) or len(given) != len(output):
                raise IndexError(
                    f"rows {rows.start} to {rows.stop} of a batch of {len(output)} "
                    f"were asked for in a {type(module).__name__}"
                )
            response = addition.delta.response(given[rows], self._layer, addition.strength)
            output[rows] += response.to(output.dtype)
