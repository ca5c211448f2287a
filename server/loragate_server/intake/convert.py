"""From the tensors of a file to one weight delta per layer, and an exact account of the rest.

What is applied is what diffusers' `load_lora_weights` applies (or peft, for a folder that peft
saved). A tensor that does not end up in a delta, for whatever reason, is named in the coverage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from loragate_server.intake.adapter import KeyCoverage, ModuleRef
from loragate_server.intake.algebra import Dora, LowRank
from loragate_server.intake.delta import LayerShape, WeightDelta
from loragate_server.intake.factors import FactorGroup, group_factors
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
from loragate_server.intake.scaling import (
    Scaling,
    ScalingUnknownError,
    declared_scaling,
    inferred_scaling,
)
from loragate_server.models.apply import layer_shape
from loragate_server.models.base import BaseModel

_ALPHA = re.compile(r"(?:\A|.*\.)(?:alpha|lora_alpha|network_alpha)\Z")
_FACTOR_PART = "factors"
_KOHYA = ("lora_unet_", "lora_te", "lora_transformer_")
_SGM = ("input_blocks", "middle_block", "output_blocks")
_XLABS = ("double_blocks.", "single_blocks.", "diffusion_model.double", "diffusion_model.single")
_TEXT_LAYERS = (".q_proj", ".k_proj", ".v_proj", ".out_proj", ".fc1", ".fc2")


@dataclass(frozen=True)
class Converted:
    """What became of a file's tensors.

    Attributes:
        format: how the names are written and what kind of adapter it is, as in "kohya/lora".
        deltas: one per changed layer.
        coverage: which tensors these are made of, and which tensors are in none.
    """

    format: str
    deltas: Mapping[ModuleRef, WeightDelta]
    coverage: KeyCoverage


def convert(
    tensors: Mapping[str, Tensor],
    base: BaseModel,
    *,
    config: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Converted:
    """Makes deltas of a file's tensors.

    Args:
        tensors: by name, in the order in which diffusers would read them.
        base: the base model that they are meant to change.
        config: the `adapter_config.json` beside the file, if any; used for what peft saved.
        metadata: the file's `lora_adapter_metadata`, if any, as diffusers writes it:
            "component.field" to value.

    Raises:
        NoDecisionError: ADAPTER_METADATA_INVALID.
    """
    alphas = {name: t for name, t in tensors.items() if _ALPHA.match(name) and t.numel() == 1}
    weights = {name: t for name, t in tensors.items() if name not in alphas}
    groups, rest = group_factors(weights, {k: float(v.item()) for k, v in alphas.items()})
    plain = {name: tensor for name, tensor in rest.items() if plain_prefix(name) is not None}
    component = _peft_component(weights, base, config)
    if component is None:
        conversion: Conversion = pipeline_conversion(base)
        declared = _by_component(metadata, base)
        folder = None
    else:
        conversion = peft_conversion(component, base)
        declared = {component: dict(config or {})}
        folder = component
    naming = name_layers(conversion, plain, groups, alphas)
    builder = _Builder(base, naming, declared, folder)
    builder.run()
    unmapped = builder.unmapped(weights)
    coverage = KeyCoverage(
        weight_tensors=len(weights),
        mapped_tensors=len(weights) - len(unmapped),
        unmapped=unmapped,
        matched_modules=len(builder.deltas),
    )
    return Converted(_format_name(weights, groups, builder.deltas), builder.deltas, coverage)


@dataclass
class _Builder:
    """Builds the deltas of one file and remembers what it used.

    Attributes:
        declared: component to configuration; empty where the file has none.
        folder: the one component of an adapter that peft saved, or None.
    """

    base: BaseModel
    naming: Naming
    declared: Mapping[str, Mapping[str, Any]]
    folder: str | None
    deltas: dict[ModuleRef, WeightDelta] = field(default_factory=dict)
    used: set[tuple[ModuleRef, str]] = field(default_factory=set)

    def run(self) -> None:
        layers = self.base.adaptable_modules()
        scalings = {component: self._scaling(component) for component in self.base.components}
        for ref, parts in self.naming.parts.items():
            module, scaling = layers.get((ref.component, ref.module)), scalings[ref.component]
            if module is not None and scaling is not None:
                self._add_plain(ref, module, parts, scaling)
        for ref, (group, rows) in self.naming.stacked.items():
            module = layers.get((ref.component, ref.module))
            scale = self._group_scale(ref, group, scalings[ref.component])
            if module is None or scale is None or ref in self.deltas:
                continue
            delta = group.delta(layer_shape(module), scale, rows, self.base.device)
            if delta is not None:
                self.deltas[ref] = delta
                self.used.add((ref, _FACTOR_PART))

    def unmapped(self, weights: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Names of the tensors that reach no layer, or reach one that was not built of them."""
        reached: dict[str, list[bool]] = {}
        for place, names in self.naming.sources.items():
            for name in names:
                reached.setdefault(name, []).append(place in self.used)
        for ref, (group, _) in self.naming.stacked.items():
            for name in group.names:
                reached.setdefault(name, []).append((ref, _FACTOR_PART) in self.used)
        return tuple(name for name in weights if not all(reached.get(name, [False])))

    def _scaling(self, component: str) -> Scaling | None:
        alphas = self.naming.alphas.get(component, {})
        state = self.naming.state.get(component, {})
        try:
            if component in self.declared:
                # Diffusers refuses a file that has both; loaders that ignore one would disagree.
                return None if alphas else declared_scaling(self.declared[component])
            if not state:
                return None
            unet = component == self.base.denoiser_component
            ranks = dict(_ranks(state, None if unet else self.base.components[component]))
            return inferred_scaling(ranks, alphas, state, unet=unet)
        except ScalingUnknownError:
            return None

    def _group_scale(
        self, ref: ModuleRef, group: FactorGroup, scaling: Scaling | None
    ) -> float | None:
        if self.folder is None:
            return group.own_scale
        return None if scaling is None else scaling.of(ref.module)[1]

    def _add_plain(
        self, ref: ModuleRef, module: nn.Module, parts: Mapping[str, Tensor], scaling: Scaling
    ) -> None:
        down, up = parts.get(DOWN), parts.get(UP)
        rank, scale = scaling.of(ref.module)
        if down is None or up is None or not _fits(layer_shape(module), down, up, rank):
            return
        device = self.base.device
        magnitude = parts.get(MAGNITUDE)
        bias = parts.get(BIAS) if scaling.bias else None
        out_features = len(up)
        if scaling.dora != (magnitude is not None) or (bias is not None and scaling.dora):
            return
        if any(each is not None and each.numel() != out_features for each in (bias, magnitude)):
            return
        lora = LowRank(
            down.to(device).float(),
            up.to(device).float(),
            scale,
            bias=None if bias is None else bias.to(device).float().flatten(),
        )
        if magnitude is None:
            self.deltas[ref] = lora
        else:
            self.deltas[ref] = Dora(lora, magnitude.to(device).float().flatten())
        self.used.update((ref, part) for part in parts if part != BIAS or scaling.bias)


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


def _fits(layer: LayerShape, down: Tensor, up: Tensor, rank: int) -> bool:
    weight = layer.weight.shape
    ones = (1,) * (len(weight) - 2)
    plain = layer.groups == 1 and set(layer.dilation) == {1}
    return plain and down.shape == (rank, *weight[1:]) and up.shape == (weight[0], rank, *ones)


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


def _by_component(metadata: Mapping[str, Any] | None, base: BaseModel) -> dict[str, dict[str, Any]]:
    if metadata is None:
        return {}
    return {
        component: {
            key.removeprefix(f"{component}."): value
            for key, value in metadata.items()
            if key.startswith(f"{component}.")
        }
        for component in base.components
    }


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
