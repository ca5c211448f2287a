"""Products of adapters with every direction of the concepts' gradients, in as few launches as fit.

Plain factors take little room and go in one launch. A change that is none (LoHa, LoKr, DoRA) is as
large as its layer, so that of a large model a few layers are held at one time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loragate_kernels.lora_response import Directions, LowRank, inner_products
from loragate_server.adapter import algebra
from loragate_server.adapter.adapter import Adapter, ModuleRef
from loragate_server.adapter.delta import WeightDelta
from loragate_server.adapter.reference import Strength
from loragate_server.audit.profile import Backend
from loragate_server.concepts.gradients import ConceptGradients
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel

Fill = Callable[[list[LowRank]], list[LowRank]]
"""What is put behind the adapters of one layer."""


MOST_DENSE_BYTES = 1 << 30
"""Of changes that are no plain factors, and so as large as their layers, which are held at once."""


@dataclass(frozen=True)
class Products:
    """What one launch gave, of some layers.

    Attributes:
        refs: the changed layers, in the model's order.
        values: float64 [layers, adapters, concepts, strata].
        changes: by layer, the change by each adapter.
    """

    refs: tuple[ModuleRef, ...]
    values: Tensor
    changes: Sequence[Sequence[LowRank]]


def products(
    base: BaseModel,
    gradients: ConceptGradients,
    adaptation: Sequence[tuple[Adapter, Strength]],
    backend: Backend,
    fill: Fill | None = None,
) -> Iterator[Products]:
    """The products of adapters with every direction, layer by layer.

    In one launch, but where changes are no plain factors: then of as many layers at one time as
    `MOST_DENSE_BYTES` allow, and nobody should hold what was given before.

    Args:
        base: the base model that the gradients are of.
        gradients: the concept gradients.
        adaptation: adapters, each with its strength.
        backend: of `lora_response`.
        fill: puts the same number behind the adapters in every layer; their products come last.
    """
    touched = {ref for adapter, _ in adaptation for ref in adapter.deltas}
    refs = tuple(ref for ref in gradients.layers if ref in touched)
    tail = (len(gradients.concepts), len(gradients.strata))
    if not refs:
        yield Products((), torch.zeros((0, len(adaptation), *tail), dtype=torch.float64), ())
    for some in _held_at_once(base, refs, [adapter for adapter, _ in adaptation]):
        yield _products_of(base, gradients, adaptation, backend, fill, some)


def _held_at_once(
    base: BaseModel, refs: Sequence[ModuleRef], adapters: Sequence[Adapter]
) -> Iterator[tuple[ModuleRef, ...]]:
    """The layers in their order, in groups that have room together."""
    some: list[ModuleRef] = []
    held = 0
    for ref in refs:
        module = base.components[ref.component].get_submodule(ref.module)
        rows, columns = layer_shape(module).weight.flatten(1).shape
        deltas = [adapter.deltas[ref] for adapter in adapters if ref in adapter.deltas]
        dense = sum(not isinstance(one, algebra.LowRank) or one.mid is not None for one in deltas)
        more = 4 * dense * (rows * columns + min(rows, columns) ** 2)
        if some and held + more > MOST_DENSE_BYTES:
            yield tuple(some)
            some, held = [], 0
        some.append(ref)
        held += more
    if some:
        yield tuple(some)


def _products_of(
    base: BaseModel,
    gradients: ConceptGradients,
    adaptation: Sequence[tuple[Adapter, Strength]],
    backend: Backend,
    fill: Fill | None,
    refs: tuple[ModuleRef, ...],
) -> Products:
    tail = (len(gradients.concepts), len(gradients.strata))
    layers = [
        [
            factors_of(
                base,
                ref,
                adapter.deltas.get(ref),
                strength.denoiser
                if ref.component == base.denoiser_component
                else strength.text_encoder,
            )
            for adapter, strength in adaptation
        ]
        for ref in refs
    ]
    filled = layers if fill is None else [[*changes, *fill(changes)] for changes in layers]
    directions = Directions(tuple(gradients.layers[ref] for ref in refs))
    found = inner_products(filled, directions, backend=backend)
    return Products(refs, found.values.reshape(len(refs), len(filled[0]), *tail), layers)


def factors_of(
    base: BaseModel, ref: ModuleRef, delta: WeightDelta | None, strength: float
) -> LowRank:
    """The change of one layer as factors; a dense one is the product of itself and an identity."""
    if isinstance(delta, algebra.LowRank) and delta.mid is None:
        down, up = delta.down.flatten(1), delta.up.flatten(1)
        return LowRank(down.contiguous(), up.contiguous(), delta.scale * strength)
    shape = layer_shape(base.components[ref.component].get_submodule(ref.module))
    weight = shape.weight.detach().flatten(1)
    d_out, d_in = weight.shape
    if delta is None:
        empty = torch.zeros(0, device=weight.device)
        return LowRank(empty.reshape(0, d_in), empty.reshape(d_out, 0), 0.0)
    dense = delta.dense(shape, strength).flatten(1).contiguous()
    if d_out <= d_in:
        return LowRank(dense, torch.eye(d_out, device=dense.device), 1.0)
    return LowRank(torch.eye(d_in, device=dense.device), dense, 1.0)
