"""peft: a folder with an `adapter_config.json`, as `PeftModel.from_pretrained` loads it."""

from __future__ import annotations

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.loader_rules.diffusers_whole import require_own_shapes
from loragate_server.intake.loader_rules.meaning import (
    LayerScale,
    Layout,
    LoaderRefusesError,
    Meaning,
    UnknownEffectError,
)
from loragate_server.intake.loader_rules.scaling import (
    chosen_layers,
    declared_scaling,
    kind_of,
    wrong_rank,
)


def peft_rule(layout: Layout) -> Meaning:
    """Ranks, alphas and layers by the configuration; tensors of other layers are passed over."""
    if layout.config is None:
        raise LoaderRefusesError("it has no adapter_config.json beside it")
    if layout.folder is None:
        raise LoaderRefusesError("its names are not those that peft saves")
    require_own_shapes(layout)
    kind = kind_of(layout.config)
    scaling, chosen = declared_scaling(layout.config, kind), chosen_layers(layout.config)
    layers: dict[ModuleRef, LayerScale] = {}
    groups: dict[ModuleRef, float] = {}
    passed_over: set[ModuleRef] = set()
    for ref in layout.naming.parts:
        rank, scale = scaling.of(ref.module)
        if kind != "LORA" or ref.module not in chosen:
            passed_over.add(ref)
        elif layout.rank_of(ref) != rank:
            raise wrong_rank(ref, layout.rank_of(ref), rank)
        elif scaling.dora and not layout.has_magnitude(ref):
            raise UnknownEffectError(f"layer {ref.module} is DoRA without a magnitude")
        else:
            layers[ref] = LayerScale(scale, scaling.dora, scaling.bias)
    for ref, (group, _) in layout.naming.stacked.items():
        if group.kind == kind.lower() and ref.module in chosen:
            groups[ref] = scaling.of(ref.module)[1]
        else:
            passed_over.add(ref)
    if scaling.random_start:
        _refuse_layers_left_at_random(layout, layers.keys() | groups.keys())
    if not layers and not groups:
        raise LoaderRefusesError("its configuration chooses none of its layers")
    return Meaning(layers, groups, frozenset(passed_over))


def _refuse_layers_left_at_random(layout: Layout, loaded: set[ModuleRef]) -> None:
    assert layout.config is not None  # noqa: S101 - looked at by the caller
    chosen = chosen_layers(layout.config)
    for component, module in layout.base.adaptable_modules():
        ref = ModuleRef(component, module)
        if component == layout.folder and module in chosen and ref not in loaded:
            raise UnknownEffectError(
                f"layer {module} has no weights in the file and would start at random"
            )
