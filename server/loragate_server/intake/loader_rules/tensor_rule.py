"""ComfyUI and the A1111 family: alpha / rank per layer, from the tensors alone.

scale = alpha / down.shape[0]: `LoRAAdapter.calculate_weight` of ComfyUI (comfy/weight_adapter), and
`NetworkModule.calc_scale` of A1111, Forge and SD.Next. Neither header nor `adapter_config.json` is
read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.loader_rules.meaning import (
    LayerScale,
    Layout,
    LoaderRefusesError,
    Meaning,
)
from loragate_server.intake.loader_rules.spelling import in_table, prefix_of, require_one_way

HEADER_ALPHAS = ("lora_alpha", "network_alpha", "alpha")
"""Entries of the header by which one alpha is told for all layers."""

_DECORATION = re.compile(
    r"\.processor|[._]lora(?:_[AB]|_down|_up|\.down|\.up)?(?:\.\w+)?\Z|[._]0\Z|[._]"
)


def comfyui_rule(layout: Layout) -> Meaning:
    """What is not in its table is left out: of a UNet's dotted attention all but `.processor.`."""
    if layout.folder is not None and layout.base.family != "sd3":
        raise LoaderRefusesError("it does not know the names of a folder that peft has saved")
    passed_over = (ref for ref in _every_layer(layout) if not in_table(layout, ref))
    return _scaled(layout, lambda ref: own_alpha_scale(layout, ref), passed_over)


def a1111_rule(layout: Layout) -> Meaning:
    """Layers of every spelling, because Forge and SD.Next know more of them than A1111."""
    if layout.folder is not None:
        raise LoaderRefusesError("it does not know the names of a folder that peft has saved")
    require_one_way(layout)
    passed_over = (
        ref
        for ref in _every_layer(layout)
        if "." not in (prefix_of(layout, ref) or ".") and not in_table(layout, ref)
    )
    return _scaled(layout, lambda ref: own_alpha_scale(layout, ref), passed_over)


def unscaled_rule(layout: Layout) -> Meaning:
    """Every layer at 1: what a loader does that leaves alphas out."""
    layers = {ref: LayerScale(1.0) for ref in layout.naming.parts}
    return Meaning(layers, dict.fromkeys(layout.naming.stacked, 1.0))


def every_scale_rule(layout: Layout) -> Meaning:
    """Every alpha used that names a layer in any spelling, and the header's where none does."""
    spelled = {_bare(name.rpartition(".")[0]): alpha for name, alpha in layout.alphas.items()}
    told = [_number(layout.header[name]) for name in HEADER_ALPHAS if name in layout.header]
    whole = spelled.get("", next((number for number in told if number is not None), None))

    def scale(ref: ModuleRef) -> float:
        alpha = spelled.get(_bare(layout.prefix_of(ref) or ""), whole)
        rank = layout.rank_of(ref)
        return 1.0 if alpha is None or not rank else float(alpha) / rank

    return _scaled(layout, scale)


def own_alpha_scale(layout: Layout, ref: ModuleRef) -> float:
    """alpha / rank of one layer by its own `PREFIX.alpha`; 1 without one."""
    prefix, rank = layout.prefix_of(ref), layout.rank_of(ref)
    alpha = None if prefix is None else layout.alphas.get(f"{prefix}.alpha")
    return 1.0 if alpha is None or not rank else float(alpha.item()) / rank


def unused_scales(layout: Layout) -> tuple[str, ...]:
    """What scales something in the file and is not a kohya layer's own alpha.

    Loaders disagree about an alpha beside dotted names, about one that names no layer in its own
    spelling, and about those of the header.
    """
    used = {
        f"{prefix}.alpha"
        for ref in layout.naming.parts
        if (prefix := layout.prefix_of(ref)) is not None and "." not in prefix
    }
    used |= {f"{group.prefix}.alpha" for group, _ in layout.naming.stacked.values()}
    header = [name for name in HEADER_ALPHAS if name in layout.header]
    return (*(name for name in layout.alphas if name not in used), *header)


def _scaled(
    layout: Layout,
    scale: Callable[[ModuleRef], float],
    passed_over: Iterable[ModuleRef] = (),
) -> Meaning:
    left = frozenset(passed_over)
    layers = {ref: LayerScale(scale(ref)) for ref in layout.naming.parts if ref not in left}
    groups = {
        ref: group.own_scale for ref, (group, _) in layout.naming.stacked.items() if ref not in left
    }
    if left and not layers and not groups:
        raise LoaderRefusesError("it knows none of the names of its layers")
    return Meaning(layers, groups, left)


def _every_layer(layout: Layout) -> Iterator[ModuleRef]:
    return chain(layout.naming.parts, layout.naming.stacked)


def _bare(prefix: str) -> str:
    """A layer's name without what the spellings differ by."""
    return _DECORATION.sub("", prefix)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
