"""From the tensors of a file to one weight delta per layer, and an exact account of the rest.

The layers of tensors are told once (`naming`); at which scale each loader applies them is told by
its rule (`loader_rules`). A tensor that does not end up in a delta, for whatever reason, is named
in the coverage.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from loragate_server.adapter.adapter import KeyCoverage, ModuleRef
from loragate_server.adapter.algebra import Dora, LowRank
from loragate_server.adapter.delta import WeightDelta
from loragate_server.intake.causes import causes_of
from loragate_server.intake.factors import FactorGroup, group_factors
from loragate_server.intake.loader_rules.meaning import LayerScale, Layout, Meaning
from loragate_server.intake.loader_rules.names import LOADERS
from loragate_server.intake.loader_rules.readings import read_layout
from loragate_server.intake.naming import (
    BIAS,
    DOWN,
    MAGNITUDE,
    PEFT_PREFIX,
    UP,
    Conversion,
    Naming,
    name_layers,
    peft_conversion,
    pipeline_conversion,
    plain_prefix,
)
from loragate_server.intake.rounding import group_same_in_half, same_in_half
from loragate_server.intake.shapes import like_layer
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel
from loragate_server.models.once import once_per_base
from loragate_server.time_limit import TimeLimitError, cpu_time_limit

_ALPHA = re.compile(r"(?:\A|.*\.)(?:alpha|lora_alpha|network_alpha)\Z")
_STACKED = 8
"""Layers of which a file may hold the rows under one name; Flux stacks up to four."""
NAMING_S, NAMING_PER_TENSOR_S = 1.0, 0.01
"""Processor seconds in which the layers of a file are found; ordinary ones need a tenth of them."""
_IN_HALF = "a loader that computes in half precision"
_KOHYA = ("lora_unet_", "lora_te", "lora_transformer_")
_SGM = ("input_blocks", "middle_block", "output_blocks")
_XLABS = ("double_blocks.", "single_blocks.", "diffusion_model.double", "diffusion_model.single")


@dataclass(frozen=True)
class Reading:
    """What a file means to some loaders.

    Attributes:
        loaders: which ones.
        deltas: one per changed layer.
        coverage: which tensors these are made of, and which tensors are in none.
    """

    loaders: tuple[str, ...]
    deltas: Mapping[ModuleRef, WeightDelta]
    coverage: KeyCoverage


@dataclass(frozen=True)
class Converted:
    """What became of a file's tensors.

    Attributes:
        format: how the names are written and what kind of adapter it is, as in "kohya/lora".
        readings: one per distinct meaning; at least one, which is of no loader where all refuse.
        refused: loaders that would not load the file, and why.
        unknown: loaders of which it cannot be told what they would do, and why.
        causes: what can be told about tensors that are in no delta, as (code, sentence).
    """

    format: str
    readings: tuple[Reading, ...]
    refused: Mapping[str, str]
    unknown: Mapping[str, str]
    causes: tuple[tuple[str, str], ...] = ()


def convert(
    tensors: Mapping[str, Tensor],
    base: BaseModel,
    *,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    header: Mapping[str, str] | None = None,
    loaders: Sequence[str] = LOADERS,
) -> Converted:
    """Makes deltas of a file's tensors, once for each way in which the loaders read them.

    Args:
        tensors: by name, in the order in which diffusers would read them.
        base: the base model that they are meant to change.
        config: the `adapter_config.json` beside the file, if any.
        metadata: the file's `lora_adapter_metadata`, if any, as diffusers writes it:
            "component.field" to value.
        header: the header's metadata as it stands.
        loaders: those that may load the file.

    Raises:
        NoDecisionError: ADAPTER_METADATA_INVALID.
    """
    alphas = {name: t for name, t in tensors.items() if _ALPHA.match(name) and t.numel() == 1}
    weights = {name: t for name, t in tensors.items() if name not in alphas}
    groups, rest = group_factors(weights, {k: float(v.item()) for k, v in alphas.items()})
    plain = {name: tensor for name, tensor in rest.items() if plain_prefix(name) is not None}
    folder = _peft_component(weights, base, config)
    conversion = pipeline_conversion(base) if folder is None else peft_conversion(folder, base)
    naming = _named(conversion, plain, groups, alphas, base)
    order = tuple(tensors)
    layout = Layout(
        base, weights, alphas, naming, metadata, header or {}, config, folder, order, tuple(groups)
    )
    read = read_layout(layout, loaders)
    builder = _Builder(layout)
    readings = [builder.reading(names, meaning) for names, meaning in read.meanings]
    if not readings:
        readings = [builder.reading((), Meaning({}, {}))]
    named = _format_name(weights, groups, readings[0].deltas)
    unknown = dict(read.unknown)
    if rounded := builder.otherwise_in_half([meaning for _, meaning in read.meanings]):
        unknown[_IN_HALF] = f"layer {rounded.module} is another once its factors are rounded"
    left_over = dict.fromkeys(name for each in readings for name in each.coverage.unmapped)
    namings = [naming, *(each.naming for _, each in read.meanings if each.naming is not None)]
    causes = tuple(causes_of(layout, namings, left_over))
    return Converted(named, tuple(readings), read.refused, unknown, causes)


def _named(
    conversion: Conversion,
    plain: Mapping[str, Tensor],
    groups: Sequence[FactorGroup],
    alphas: Mapping[str, Tensor],
    base: BaseModel,
) -> Naming:
    """Where the tensors belong; nowhere, where finding out takes longer than for any real file."""
    try:
        with cpu_time_limit(NAMING_S + NAMING_PER_TENSOR_S * (len(plain) + len(groups))):
            return name_layers(conversion, plain, groups, alphas, most_rows=_most_rows(base))
    except TimeLimitError:
        return Naming()


@once_per_base
def _most_rows(base: BaseModel) -> int:
    """Most rows that the factors of one name can have: several layers may be stacked."""
    rows = (layer_shape(module).weight.shape[0] for module in base.adaptable_modules().values())
    return _STACKED * max(rows)


class _Builder:
    """Builds the deltas of one file; readings share the tensors."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._device = layout.base.device
        self._layers = layout.base.adaptable_modules()
        self._plain: dict[tuple[ModuleRef, tuple[tuple[str, int], ...]], _Plain | None] = {}

    def reading(self, loaders: tuple[str, ...], meaning: Meaning) -> Reading:
        """The deltas of one meaning, and the account of every tensor."""
        naming = meaning.naming or self._layout.naming
        deltas: dict[ModuleRef, WeightDelta] = {}
        for ref, scale in meaning.layers.items():
            if (plain := self._plain_of(naming, ref)) is not None:
                deltas[ref] = plain.delta(scale)
        for ref, group_scale in meaning.groups.items():
            if ref not in deltas and (delta := self._stacked(naming, ref, group_scale)) is not None:
                deltas[ref] = delta
        passed_over = meaning.passed_over_of(self._layout.base)
        unmapped = meaning.unaccounted(self._layout, deltas.keys() | passed_over)
        weights = self._layout.weights
        coverage = KeyCoverage(
            weight_tensors=len(weights),
            mapped_tensors=len(weights) - len(unmapped),
            unmapped=unmapped,
            matched_modules=len(deltas),
        )
        return Reading(loaders, deltas, coverage)

    def otherwise_in_half(self, meanings: Sequence[Meaning]) -> ModuleRef | None:
        """A layer whose change is another in half precision, or None."""
        found: dict[int, tuple[ModuleRef, _Plain, set[float]]] = {}
        for meaning in meanings:
            naming = meaning.naming or self._layout.naming
            for ref, how in meaning.layers.items():
                plain = self._plain_of(naming, ref)
                if plain is not None and math.isfinite(how.scale):
                    found.setdefault(id(plain), (ref, plain, set()))[2].add(how.scale)
        for ref, plain, scales in found.values():
            weight = layer_shape(self._layers[ref.component, ref.module]).weight
            if not same_in_half(plain.down, plain.up, weight, scales):
                return ref
        return self._group_otherwise_in_half(meanings)

    def _group_otherwise_in_half(self, meanings: Sequence[Meaning]) -> ModuleRef | None:
        scales: dict[int, tuple[ModuleRef, FactorGroup, float]] = {}
        for meaning in meanings:
            naming = meaning.naming or self._layout.naming
            for ref, scale in meaning.groups.items():
                if (ref.component, ref.module) in self._layers and math.isfinite(scale):
                    group, _ = naming.stacked[ref]
                    _, _, before = scales.get(id(group), (ref, group, 0.0))
                    scales[id(group)] = ref, group, max(before, abs(scale))
        for ref, group, scale in scales.values():
            weight = layer_shape(self._layers[ref.component, ref.module]).weight
            if not group_same_in_half(group, weight, scale, self._device):
                return ref
        return None

    def _plain_of(self, naming: Naming, ref: ModuleRef) -> _Plain | None:
        key = ref, tuple((part, id(tensor)) for part, tensor in naming.parts[ref].items())
        if key not in self._plain:
            self._plain[key] = self._fitted(ref, naming.parts[ref])
        return self._plain[key]

    def _fitted(self, ref: ModuleRef, parts: Mapping[str, Tensor]) -> _Plain | None:
        """The plain factors of a layer; None where they do not fit it."""
        module = self._layers.get((ref.component, ref.module))
        down, up = parts.get(DOWN), parts.get(UP)
        if module is None or down is None or up is None:
            return None
        fitted = like_layer(layer_shape(module), down, up)
        if fitted is None:
            return None
        down, up = fitted
        bias, magnitude = parts.get(BIAS), parts.get(MAGNITUDE)
        if any(each is not None and each.numel() != len(up) for each in (bias, magnitude)):
            return None
        return _Plain(
            self._moved(down),
            self._moved(up),
            None if bias is None else self._moved(bias).flatten(),
            None if magnitude is None else self._moved(magnitude).flatten(),
        )

    def _stacked(self, naming: Naming, ref: ModuleRef, scale: float) -> WeightDelta | None:
        module = self._layers.get((ref.component, ref.module))
        if module is None or ref in naming.parts:
            return None
        group, rows = naming.stacked[ref]
        if "diff_b" in group.factors and getattr(module, "bias", None) is None:
            return None  # some loaders give the layer a bias, others leave the change out
        return group.delta(layer_shape(module), scale, rows, self._device)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device).float()


@dataclass(frozen=True)
class _Plain:
    """The factors of one layer, where the base model is, without a scale."""

    down: Tensor
    up: Tensor
    bias: Tensor | None
    magnitude: Tensor | None

    def delta(self, how: LayerScale) -> WeightDelta:
        lora = LowRank(self.down, self.up, how.scale, bias=self.bias if how.bias else None)
        return Dora(lora, self.magnitude) if how.dora and self.magnitude is not None else lora


def _peft_component(
    weights: Mapping[str, Tensor], base: BaseModel, config: Mapping[str, Any] | None
) -> str | None:
    """Which component an adapter saved by peft is of; None where peft did not save it."""
    if config is None or not weights or not all(n.startswith(PEFT_PREFIX) for n in weights):
        return None
    mapping = config.get("auto_mapping")
    wanted = mapping.get("base_model_class") if isinstance(mapping, Mapping) else None
    named = [c for c, module in base.components.items() if type(module).__name__ == wanted]
    if len(named) == 1:
        return named[0]
    layers = base.adaptable_modules()
    stems = [name.removeprefix(PEFT_PREFIX) for name in weights]

    def matches(component: str) -> int:
        own = [f"{name}." for part, name in layers if part == component]
        known = set(own)
        return sum(any(f"{stem[:end]}" in known for end in _ends(stem)) for stem in stems)

    counts = {component: matches(component) for component in base.components}
    best = max(counts, key=lambda component: counts[component])
    return best if counts[best] else None


def _ends(name: str) -> Iterator[int]:
    return (index + 1 for index, letter in enumerate(name) if letter == ".")


def _format_name(
    weights: Mapping[str, Tensor],
    groups: list[FactorGroup],
    deltas: Mapping[ModuleRef, WeightDelta],
) -> str:
    kinds = {group.kind for group in groups}
    plain = [name for name in weights if plain_prefix(name) is not None]
    if any("dora_scale" in name or "lora_magnitude_vector" in name for name in weights):
        kinds.add("dora")
    elif any(isinstance(each, LowRank) and each.down[0, 0].numel() > 1 for each in deltas.values()):
        kinds.add("locon")
    elif plain and kinds != {"locon"}:
        kinds.add("lora")
    kind = kinds.pop() if len(kinds) == 1 else "mixed" if kinds else "unknown"
    return f"{_writing(list(weights))}/{kind}"


def _writing(names: list[str]) -> str:
    if not names:
        return "empty"
    if all(name.startswith(PEFT_PREFIX) for name in names):
        return "peft"
    if all(name.startswith(_KOHYA) for name in names):
        return "kohya-sgm" if any(part in name for part in _SGM for name in names) else "kohya"
    if all(name.startswith(("unet.", "transformer.", "text_encoder")) for name in names):
        return "diffusers-old" if any("_lora." in name for name in names) else "diffusers"
    if all(name.startswith(_XLABS) and ".processor." in name for name in names):
        return "xlabs"
    return "other"
