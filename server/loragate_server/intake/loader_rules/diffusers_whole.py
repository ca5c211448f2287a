"""What diffusers does with a file as a whole: whether its loading fails, or takes nothing of it.

Layers are told tensor by tensor; a file of which some tensors reach none is also converted as it
is, because one name too many ends the conversion for all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from loragate_server.intake.loader_rules.meaning import (
    Layout,
    LoaderRefusesError,
    UnknownEffectError,
)
from loragate_server.intake.loader_rules.names import TAKES_TOO_LONG
from loragate_server.intake.naming import DOWN, NO_COMPONENT, UP, State, pipeline_conversion
from loragate_server.intake.shapes import like_layer, written_as_layer
from loragate_server.models.apply import layer_shape
from loragate_server.time_limit import TimeLimitError, cpu_time_limit

LIMIT_S, LIMIT_PER_TENSOR_S = 1.0, 0.002
"""Processor seconds that a conversion may take; ordinary files need a tenth of them."""

_ENDS = re.compile(r"\.(?:lora_[AB]\.(?:weight|bias)|lora_magnitude_vector(?:\.weight)?)\Z")
_NAMED_AFTER_AN_ADAPTER = re.compile(r"\.lora_[AB]\.\w+\.(?:weight|bias)\Z")
"""Ends of names that peft gives its own copy in memory; it finds no tensor for them in a file."""


def converted(
    layout: Layout, given: Mapping[str, Tensor]
) -> tuple[State, dict[str, dict[str, Any]]]:
    """These tensors through the pipeline's own conversion, and the alphas that it hands on.

    Raises:
        LoaderRefusesError: it fails.
        UnknownEffectError: it takes too long.
    """
    try:
        with cpu_time_limit(LIMIT_S + LIMIT_PER_TENSOR_S * len(given)):
            return pipeline_conversion(layout.base)(given)
    except TimeLimitError as error:
        raise UnknownEffectError(TAKES_TOO_LONG) from error
    except Exception as error:  # a conversion may stumble over anything that an uploader writes
        raise LoaderRefusesError(f"its conversion fails ({type(error).__name__})") from error


def require_taken(layout: Layout) -> None:
    """Looks at the whole file, where the layer of some tensor is not known.

    Raises:
        LoaderRefusesError: the conversion fails, or what comes out holds no layer of the model, so
            that the pipeline stays as it is.
        UnknownEffectError: loading ends with an error when some layers may have been loaded.
    """
    layers = layout.base.adaptable_modules()
    reached = {
        name
        for (ref, _), names in layout.naming.sources.items()
        if (ref.component, ref.module) in layers
        for name in names
    }
    if layout.weights.keys() <= reached:
        return
    tensors = {**layout.weights, **layout.alphas}
    state, _ = converted(layout, {name: tensors[name] for name in layout.order if name in tensors})
    require_readable(layout, state)
    if not any(_holds_a_layer(layout, component, own) for component, own in state.items()):
        raise LoaderRefusesError("it takes none of its names for a layer")


def require_readable(layout: Layout, state: State) -> None:
    """Looks for a text encoder of whose names, be they of alphas alone, nothing can be made.

    Raises:
        UnknownEffectError: there loading ends with an error.
    """
    for component, own in state.items():
        if component != layout.base.denoiser_component and not own:
            raise UnknownEffectError(
                f"it ends with an error at the tensors of {component}, and may load others before"
            )


def require_own_shapes(layout: Layout) -> None:
    """A linear layer's factors for a 1 x 1 convolution end the loading, and so the other way round.

    Raises:
        LoaderRefusesError: a layer of the denoiser, which is taken out again, has such factors.
        UnknownEffectError: one of a text encoder has, which comes after the denoiser.
    """
    layers = layout.base.adaptable_modules()
    for ref, parts in layout.naming.parts.items():
        module, down, up = layers.get((ref.component, ref.module)), parts.get(DOWN), parts.get(UP)
        if module is None or down is None or up is None:
            continue
        shape = layer_shape(module)
        if written_as_layer(shape, down, up) or like_layer(shape, down, up) is None:
            continue
        why = f"layer {ref.module} has tensors of {down.dim()} dimensions"
        if ref.component == layout.base.denoiser_component:
            raise LoaderRefusesError(why)
        raise UnknownEffectError(f"{why}, at which it ends, and may load others before")


def _holds_a_layer(layout: Layout, component: str, own: Mapping[str, Tensor]) -> bool:
    """Whether a converted name is one of a module of the component, whatever module that is."""
    if component == NO_COMPONENT:
        return False
    modules = {name for name, _ in layout.base.components[component].named_modules()}
    for name in own:
        if _NAMED_AFTER_AN_ADAPTER.search(name) and not _ENDS.search(name):
            continue
        stem = _ENDS.sub("", name)
        if (stem if stem != name else name.rpartition(".")[0]) in modules:
            return True
    return False
