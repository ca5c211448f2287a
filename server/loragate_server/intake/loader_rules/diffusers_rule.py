"""diffusers: `load_lora_weights` of the base model's pipeline, as installed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.loader_rules.diffusers_whole import (
    converted,
    require_own_shapes,
    require_readable,
    require_taken,
)
from loragate_server.intake.loader_rules.meaning import (
    LayerScale,
    Layout,
    LoaderRefusesError,
    Meaning,
    UnknownEffectError,
)
from loragate_server.intake.loader_rules.names import LOOPS_BELOW_0
from loragate_server.intake.loader_rules.scaling import (
    Scaling,
    chosen_layers,
    declared_scaling,
    inferred_scaling,
    wrong_rank,
)
from loragate_server.intake.naming import DOWN, UP, State, plain_prefix

_KEEPS_ALPHAS = frozenset({"sd", "sdxl"})
"""Families whose converters hand alphas on. Others divide them into the weights of some spellings,
in a loop that doubles a scale until it is large enough: a negative one never is."""
_ASKS_EVERY_NAME = frozenset({"sd", "sdxl", "sd3"})
"""Families whose `load_lora_weights` refuses a file with one name that does not hold "lora"."""
_KOHYA = ("lora_te_", "lora_unet_", "lora_te1_", "lora_te2_")
"""Beginnings of names; only where all have one of these are they converted."""
_TEXT_LAYERS = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")
_FOLDED_APART = 2e-2
"""Relative difference that rounding in half precision may leave after a scale was folded in."""

_NO_LAYERS = "dummy-target-modules"
"""For which peft adapts nothing."""


def diffusers_rule(layout: Layout) -> Meaning:
    """Ranks and alphas as `get_peft_kwargs` finds them, or as the header declares them."""
    if layout.folder is not None:
        raise LoaderRefusesError("its names are those of a folder that peft has saved")
    if layout.naming.stacked:
        _refuse_factors(layout)
    require_taken(layout)
    require_own_shapes(layout)
    state, alphas = _converted(layout)
    require_readable(layout, state)
    if layout.base.family in _ASKS_EVERY_NAME and any("lora" not in n for n in _names(state)):
        raise LoaderRefusesError("it has alphas or other tensors whose names do not hold 'lora'")
    layers: dict[ModuleRef, LayerScale] = {}
    passed_over: set[ModuleRef] = set()
    for component in layout.base.components:
        own = state.get(component, {})
        refs = [
            ref
            for ref in layout.naming.parts
            if ref.component == component and f"{ref.module}.{UP}" in own
        ]
        if not refs:
            continue
        scaling = _scaling(layout, component, own, alphas.get(component, {}))
        denoiser = component == layout.base.denoiser_component
        # The denoiser's layers are those that have tensors; a text encoder's are the chosen ones.
        chosen = None
        if layout.metadata is not None and not denoiser:
            chosen = chosen_layers(_declared(layout.metadata, component))
        for ref in refs:
            if chosen is not None and ref.module not in chosen:
                passed_over.add(ref)
                continue
            rank, scale = scaling.of(ref.module)
            if layout.rank_of(ref) != rank:
                raise wrong_rank(ref, layout.rank_of(ref), rank)
            if scaling.dora and not layout.has_magnitude(ref):
                raise UnknownEffectError(f"layer {ref.module} is DoRA without a magnitude")
            folded = _folded(own, ref.module, layout.naming.parts[ref])
            layers[ref] = LayerScale(scale * folded, scaling.dora, scaling.bias)
    if passed_over and not layers:
        raise LoaderRefusesError("its header chooses none of its layers")
    # It hands a component what is named after it and says nothing of the rest.
    return Meaning(layers, {}, frozenset(passed_over), left_out=layout.naming.nowhere)


def _refuse_factors(layout: Layout) -> NoReturn:
    """Factors that it does not know end the loading, or they alone are left out.

    Raises:
        LoaderRefusesError: the conversion finds them left over, a name does not hold "lora", or
            nothing else is there to load.
        UnknownEffectError: it may load the rest of the file without them.
    """
    kinds = {group.kind for group, _ in layout.naming.stacked.values()}
    what = (
        "it holds whole changes" if kinds == {"full"} else "it holds LoHa, LoKr or Tucker factors"
    )
    names = (*layout.weights, *layout.alphas)
    kohya = layout.base.family in _KEEPS_ALPHAS and all(n.startswith(_KOHYA) for n in names)
    asked = layout.base.family in _ASKS_EVERY_NAME and any("lora" not in name for name in names)
    rest = any("lora_down" in n or plain_prefix(n) is not None for n in layout.weights)
    if kohya or asked or not rest:
        raise LoaderRefusesError(what)
    raise UnknownEffectError(f"{what}, which it may leave out and load the rest")


def _converted(layout: Layout) -> tuple[State, dict[str, dict[str, Any]]]:
    """The file's tensors through the pipeline's own conversion, alphas and all."""
    if not layout.alphas:
        return layout.naming.state, {}
    values = [float(alpha.item()) for alpha in layout.alphas.values()]
    below_0 = any(not 0 <= each < math.inf for each in values)
    known = {name: layout.weights[name] for name in layout.naming.plain} | dict(layout.alphas)
    given = {name: known[name] for name in layout.order if name in known}
    try:
        return converted(layout, given)
    except UnknownEffectError as error:
        if below_0 and layout.base.family not in _KEEPS_ALPHAS:
            raise LoaderRefusesError(LOOPS_BELOW_0) from error
        raise


def _scaling(
    layout: Layout, component: str, state: Mapping[str, Tensor], alphas: Mapping[str, Any]
) -> Scaling:
    if layout.metadata is not None:
        if alphas:
            raise LoaderRefusesError("it has both alphas and a lora_adapter_metadata in its header")
        declared = _declared(layout.metadata, component)
        if not declared.get("target_modules") or declared["target_modules"] == _NO_LAYERS:
            raise LoaderRefusesError(f"its header names no target_modules of {component}")
        return declared_scaling(declared)  # whatever its peft_type says
    denoiser = component == layout.base.denoiser_component
    encoder = None if denoiser else layout.base.components[component]
    return inferred_scaling(dict(_ranks(state, encoder)), alphas, state, unet=denoiser)


def _names(state: State) -> Iterator[str]:
    return (name for own in state.values() for name in own)


def _declared(metadata: Mapping[str, Any], component: str) -> dict[str, Any]:
    start = f"{component}."
    return {k.removeprefix(start): v for k, v in metadata.items() if k.startswith(start)}


def _ranks(
    state: Mapping[str, Tensor], text_encoder: nn.Module | None
) -> Iterator[tuple[str, int]]:
    """Ranks under the names, and from the layers, where diffusers looks for them."""
    if text_encoder is None:
        for name, tensor in state.items():
            if "lora_B" in name and tensor.dim() > 1:
                yield f"^{name}", int(tensor.shape[1])
        return
    for layer, _ in text_encoder.named_modules():
        up = state.get(f"{layer}.{UP}") if layer.endswith(_TEXT_LAYERS) else None
        if up is not None and up.dim() > 1:
            yield f"{layer}.{UP}", int(up.shape[1])


def _folded(own: Mapping[str, Tensor], module: str, parts: Mapping[str, Tensor]) -> float:
    """By what the conversion has multiplied up @ down of a layer."""
    found = 1.0
    for part, other in ((DOWN, UP), (UP, DOWN)):
        converted = own.get(f"{module}.{part}")
        if converted is None or part not in parts or converted is parts[part]:
            continue
        weights = _components(parts[other], other).norm(dim=1) if other in parts else None
        found *= _factor(_components(converted, part), _components(parts[part], part), weights)
    return found


def _components(factor: Tensor, part: str) -> Tensor:
    """[r, n] in double precision: what one factor holds of each rank component."""
    flat = factor.double().flatten(1) if factor.dim() > 1 else factor.double().reshape(1, -1)
    return flat if part == DOWN else flat.T


def _factor(now: Tensor, was: Tensor, weights: Tensor | None) -> float:
    """By what the conversion has multiplied a factor.

    Args:
        now: its components as rows, converted.
        was: the same before.
        weights: how much each component counts: its norm in the other factor.

    Raises:
        UnknownEffectError: it has done something else to it.
    """
    if now.shape == was.shape:
        if torch.equal(now, was):
            return 1.0
        most = was.abs().flatten().argmax()
        if was.flatten()[most] == 0:
            return 1.0
        factor = float(now.flatten()[most] / was.flatten()[most])
        apart, size = (now - factor * was).norm(dim=1), now.norm(dim=1)
        if weights is not None and weights.shape == apart.shape:
            apart, size = apart * weights, size * weights
        if float(apart.norm()) <= _FOLDED_APART * float(size.norm()):
            return factor
    raise UnknownEffectError("its conversion does more to a weight than scale it")
