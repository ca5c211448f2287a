"""Which layer each tensor of an adapter file belongs to, told by diffusers' own conversion.

Names are never interpreted here. The file's tensors go through the conversion twice: once as they
are, and once as markers, constant tensors that say which input they stand for. What comes out of
the second pass tells, also through renaming, splitting and copying, where every input went.
LoHa, LoKr and Tucker LoRA, which diffusers cannot convert, take part in the marker pass in the
guise of a plain LoRA of rank 1, whose `up` holds row numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.factors import FactorGroup
from loragate_server.models.base import BaseModel

PEFT_PREFIX = "base_model.model."
DOWN, UP, BIAS, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_B.bias", "magnitude"
_KOHYA_DOWN, _KOHYA_UP = ".lora_down.weight", ".lora_up.weight"
_DOWN_END = re.compile(
    r"(?:[._]lora_down|[._]lora\.down|\.lora_linear_layer\.down|\.lora_A(?:\.\w+)?|\.down)\.weight\Z"
)

_PLAIN = re.compile(
    r"(?P<prefix>.+?)[._](?:lora_down\.weight|lora_up\.weight"
    r"|lora_[AB](?:\.\w+)?\.(?:weight|bias)"
    r"|\w*lora\w*\.(?:down|up)\.weight"
    r"|lora_magnitude_vector(?:\.weight)?)\Z"
)
_CONVERTED = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_magnitude_vector)"
    r"(?P<tail>\.weight)?\Z"
)

NO_COMPONENT = ""
"""Under which a conversion gives back what it knew, and named after no component."""
State = dict[str, dict[str, Tensor]]
"""Component to PEFT name to tensor."""


@dataclass
class Naming:
    """Where the tensors of a file went.

    Attributes:
        state: the converted tensors, as if every alpha were its layer's rank: no scale is in them.
        plain: names of the inputs that went through the conversion.
        parts: layer to part (`DOWN`, `UP`, `BIAS`, `MAGNITUDE`) to tensor.
        sources: layer and part to the names of the inputs that it was made of.
        stacked: layer to the factor group that changes it and the rows that are its own.
        turned: layers whose rows lie in the file with the second half first.
        nowhere: names of inputs that the conversion knew, and named after no component.
    """

    state: State = field(default_factory=dict)
    plain: tuple[str, ...] = ()
    parts: dict[ModuleRef, dict[str, Tensor]] = field(default_factory=dict)
    sources: dict[tuple[ModuleRef, str], frozenset[str]] = field(default_factory=dict)
    stacked: dict[ModuleRef, tuple[FactorGroup, slice]] = field(default_factory=dict)
    turned: set[ModuleRef] = field(default_factory=set)
    nowhere: frozenset[str] = frozenset()

    def rank_of(self, ref: ModuleRef) -> int:
        """The inner dimension of a plain layer; 0 where it has none."""
        down = self.parts[ref].get(DOWN)
        return 0 if down is None or not down.dim() else int(down.shape[0])


Conversion = Callable[[Mapping[str, Tensor]], tuple[State, dict[str, dict[str, Any]]]]


def plain_prefix(name: str) -> str | None:
    """The layer's part of a name that ends as plain LoRA and DoRA names do, else None."""
    match = _PLAIN.match(name)
    return match["prefix"] if match else None


def alpha_prefix(name: str) -> str | None:
    """Of a down tensor's name, what loaders put `.alpha` behind; None for other names."""
    found = _DOWN_END.search(name)
    return name[: found.start()] if found else None


def name_layers(
    convert: Conversion,
    plain: Mapping[str, Tensor],
    groups: Sequence[FactorGroup],
    alphas: Mapping[str, Tensor],
    *,
    most_rows: int,
) -> Naming:
    """Finds the layer of every tensor that `convert` knows; the others are simply not in it.

    Args:
        convert: what a loader does with names.
        plain: tensors whose names end as plain LoRA and DoRA names do.
        groups: factors that belong together.
        alphas: the file's alpha tensors by name.
        most_rows: factors whose product has more rows fit no layer and are left out, before
            anything of that size is made.
    """
    markers, inputs = _markers(plain, groups, alphas, most_rows)
    kept = _convertible(convert, markers)
    if not kept:
        return Naming()
    marked, _ = convert(dict(kept))
    real = {name: value for name, value in plain.items() if name in kept}
    real |= {name: rank for name, rank in _alphas_that_scale_nothing(plain, alphas) if name in kept}
    try:
        state, _ = convert(dict(real)) if real else ({}, {})
    except Exception:  # a conversion may stumble over anything that an uploader writes
        return Naming()
    naming = Naming(state=state, plain=tuple(name for name in plain if name in kept))
    astray = marked.pop(NO_COMPONENT, {})
    for component, tensors in marked.items():
        for name, marker in tensors.items():
            _follow(naming, component, name, marker, inputs, groups, tensors)
    if astray and not groups:  # the markers of groups are numbers of rows, too
        arrived = (each.values() for each in marked.values())
        naming.nowhere = _inputs(astray.values(), inputs) - _inputs(chain(*arrived), inputs)
    return naming


def pipeline_conversion(base: BaseModel) -> Conversion:
    """What `load_lora_weights` of the base model's pipeline does with names."""

    def convert(tensors: Mapping[str, Tensor]) -> tuple[State, dict[str, dict[str, Any]]]:
        given = frozenset(tensors)  # some converters empty what they are given
        converted, network_alphas = base.convert_keys(tensors)
        state: State = {}
        alphas: dict[str, dict[str, Any]] = {}
        for component in base.components:
            start = f"{component}."
            own = {k.removeprefix(start): v for k, v in converted.items() if k.startswith(start)}
            if own:
                state[component] = _to_peft_names(base, component, own)
                alphas[component] = {
                    k.removeprefix(start): v
                    for k, v in network_alphas.items()
                    if k.startswith(start)
                }
        starts = tuple(f"{component}." for component in base.components)
        renamed = converted.keys() - given
        if astray := {k: converted[k] for k in renamed if not k.startswith(starts)}:
            state[NO_COMPONENT] = astray
        return state, alphas

    return convert


def peft_conversion(component: str, base: BaseModel) -> Conversion:
    """What `PeftModel.from_pretrained` does with names, for an adapter of `component`."""

    def convert(tensors: Mapping[str, Tensor]) -> tuple[State, dict[str, dict[str, Any]]]:
        own = {name.removeprefix(PEFT_PREFIX): value for name, value in tensors.items()}
        return {component: _without_text_model(base, component, own)}, {}

    return convert


def _to_peft_names(base: BaseModel, component: str, own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Follows `load_lora_adapter` and `_load_lora_into_text_encoder` of diffusers."""
    if component == base.denoiser_component:
        if "lora_A" in next(iter(own)):
            return own
        return dict(convert_unet_state_dict_to_peft(own))
    try:
        own = convert_state_dict_to_peft(convert_state_dict_to_diffusers(own))
    except ValueError:
        return {}
    return _without_text_model(base, component, own)


def _without_text_model(
    base: BaseModel, component: str, own: dict[str, Tensor]
) -> dict[str, Tensor]:
    if component == base.denoiser_component or hasattr(base.components[component], "text_model"):
        return own
    return {name.removeprefix("text_model."): value for name, value in own.items()}


def _alphas_that_scale_nothing(
    plain: Mapping[str, Tensor], alphas: Iterable[str]
) -> Iterator[tuple[str, Tensor]]:
    """For each alpha the rank of its layer, so that alpha / rank is 1, where it has a plain one."""
    ranks = {
        prefix: float(tensor.shape[0])
        for name, tensor in plain.items()
        if tensor.dim() > 1 and (prefix := alpha_prefix(name)) is not None
    }
    for name in alphas:
        rank = ranks.get(name.removesuffix(".alpha"))
        if rank is not None:
            yield name, torch.tensor(rank)


def _markers(
    plain: Mapping[str, Tensor],
    groups: Sequence[FactorGroup],
    alphas: Mapping[str, Tensor],
    most_rows: int,
) -> tuple[dict[str, Tensor], list[str]]:
    """Markers by input name, and the input that each number stands for."""
    inputs = [*plain, *(group.prefix for group in groups)]
    markers = {
        name: _marker(name, tensor, index) for index, (name, tensor) in enumerate(plain.items())
    }
    for index, group in enumerate(groups, start=len(plain)):
        rows = group.out_features
        if rows is None or rows > most_rows:
            continue
        dotted = "." in group.prefix
        down, up = (f".{DOWN}", f".{UP}") if dotted else (_KOHYA_DOWN, _KOHYA_UP)
        markers[group.prefix + down] = torch.full((1, 1), float(index))
        markers[group.prefix + up] = torch.arange(rows, dtype=torch.float32).reshape(-1, 1)
    for name in alphas:
        markers[name] = torch.ones(())  # alpha equals the markers' rank: nothing is scaled
    return markers, inputs


def _marker(name: str, tensor: Tensor, index: int) -> Tensor:
    # Kohya's converters scale by alpha / rank and write in place, so these need rank 1 and memory
    # of their own; the others may share one number over their whole shape.
    shape = list(tensor.shape)
    if name.endswith(_KOHYA_DOWN) and len(shape) > 1:
        return torch.full((1, *shape[1:]), float(index))
    if name.endswith(_KOHYA_UP) and len(shape) > 1:
        return torch.full((shape[0], 1, *shape[2:]), float(index))
    return torch.full((), float(index)).expand(shape)


def _convertible(convert: Conversion, markers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The markers that can be converted together: all, or without the layers that cannot alone."""
    if not markers or _converts(convert, markers):
        return dict(markers)
    by_layer: dict[str, dict[str, Tensor]] = {}
    for name, marker in markers.items():
        layer = plain_prefix(name) or name.rpartition(".")[0]
        by_layer.setdefault(layer, {})[name] = marker
    kept: dict[str, Tensor] = {}
    for own in by_layer.values():
        if _converts(convert, own):
            kept.update(own)
    return kept if _converts(convert, kept) else {}


def _converts(convert: Conversion, markers: Mapping[str, Tensor]) -> bool:
    try:
        convert(dict(markers))
    except Exception:  # a conversion may stumble over anything that an uploader writes
        return False
    return True


def _follow(
    naming: Naming,
    component: str,
    name: str,
    marker: Tensor,
    inputs: Sequence[str],
    groups: Sequence[FactorGroup],
    marked: Mapping[str, Tensor],
) -> None:
    match = _CONVERTED.match(name)
    if match is None or (match["tail"] and match["part"] != "lora_magnitude_vector"):
        return
    if not marker.numel():
        return
    ref = ModuleRef(component, match["module"])
    part = MAGNITUDE if match["part"] == "lora_magnitude_vector" else match["part"]
    down = marked.get(f"{ref.module}.{DOWN}")
    plain_count = len(inputs) - len(groups)
    group_number = int(down.flatten()[0]) - plain_count if down is not None and down.numel() else -1
    if group_number >= 0:
        if part == UP:
            rows = marker.flatten()
            first, last = int(rows[0]), int(rows[-1])
            if last - first == len(rows) - 1:
                naming.stacked[ref] = groups[group_number], slice(first, last + 1)
        return
    numbers = _numbers(marker)
    tensor = naming.state.get(component, {}).get(name)
    if tensor is not None and max(numbers) < plain_count:
        naming.parts.setdefault(ref, {})[part] = tensor
        naming.sources[ref, part] = frozenset(inputs[number] for number in numbers)


def _inputs(markers: Iterable[Tensor], inputs: Sequence[str]) -> frozenset[str]:
    """The inputs that these markers stand for; those without dimensions may be alphas."""
    shaped = (marker for marker in markers if marker.dim() and marker.numel())
    numbers = {number for marker in shaped for number in _numbers(marker)}
    return frozenset(name for number, name in enumerate(inputs) if number in numbers)


def _numbers(marker: Tensor) -> set[int]:
    if not any(marker.stride()) or marker.numel() == 1:
        return {int(marker[(0,) * marker.dim()])}
    low, high = marker.aminmax()
    return {int(low)} if low == high else {int(each) for each in marker.unique()}
