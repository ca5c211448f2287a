"""ComfyUI and the A1111 family: alpha / rank per layer, from the tensors alone.

scale = alpha / down.shape[0]: `LoRAAdapter.calculate_weight` of ComfyUI (comfy/weight_adapter), and
`NetworkModule.calc_scale` of A1111, Forge and SD.Next. Neither header nor `adapter_config.json` is
read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.loader_rules.key_tables import (
    KeyTable,
    comfyui_table,
    forge_table,
    xlabs_table,
)
from loragate_server.intake.loader_rules.meaning import (
    LayerScale,
    Layout,
    LoaderRefusesError,
    Meaning,
    Rule,
    UnknownEffectError,
)
from loragate_server.intake.loader_rules.table_rule import meaning_by_table
from loragate_server.intake.loader_rules.webui_tables import (
    SD3_ORIGINAL,
    A1111Table,
    SdNextTable,
    joint_layers,
)
from loragate_server.intake.naming import alpha_prefix
from loragate_server.models.base import BaseModel
from loragate_server.models.once import once_per_base

HEADER_ALPHAS = ("lora_alpha", "network_alpha", "alpha")
"""Entries of the header by which one alpha is told for all layers."""

_DECORATION = re.compile(
    r"\.processor|[._]lora(?:_[AB]|_down|_up|\.down|\.up)?(?:\.\w+)?\Z|[._]0\Z|[._]"
)


def comfyui_rule(layout: Layout) -> Meaning:
    """What is not in its table is left out: of a UNet's dotted attention all but `.processor.`."""
    if layout.folder is not None and layout.base.family != "sd3":
        raise LoaderRefusesError("it does not know the names of a folder that peft has saved")
    tables = _tables(layout.base)
    of_xlabs = [name for name in layout.weights if tables.xlabs.find(name) is not None]
    if of_xlabs and len(of_xlabs) < len(layout.weights):
        raise UnknownEffectError("it holds XLabs' names beside others")
    return meaning_by_table(layout, tables.xlabs if of_xlabs else tables.comfyui, tables.comfyui)


def a1111_rule(layout: Layout) -> Meaning:
    """AUTOMATIC1111 itself, which knows no dotted names but those of SD3."""
    _refuse_folder(layout)
    if layout.base.family == "flux":
        raise LoaderRefusesError("it does not know Flux")
    if layout.base.family == "sd3" and any(
        name.count(".") < 2 for name in (*layout.weights, *layout.alphas)
    ):
        raise LoaderRefusesError("of SD3 it fails at names with fewer than two dots")
    _require_no_joint_block(layout)
    tables = _tables(layout.base)
    found = meaning_by_table(layout, tables.a1111, tables.comfyui)
    loaded = found.layers.keys() | found.groups.keys()
    alone = frozenset[ModuleRef]().union(
        *(each & loaded for each in joint_layers(layout.base) if not each <= loaded)
    )
    if loaded and alone == loaded:
        raise LoaderRefusesError("it loads an attention in whole or not, and none is whole")
    return replace(
        found,
        layers={ref: how for ref, how in found.layers.items() if ref not in alone},
        groups={ref: scale for ref, scale in found.groups.items() if ref not in alone},
        passed_over=alone,
    )


def forge_rule(layout: Layout) -> Meaning:
    """Forge, with a table like ComfyUI's.

    It loads nothing of a file with more than twelve names that it does not know. Those that come
    from it need not, so what it would load is looked at all the same.
    """
    _refuse_folder(layout)
    tables = _tables(layout.base)
    return meaning_by_table(layout, tables.forge, tables.comfyui)


def _sdnext_rule(layout: Layout, *, dotted_peft: bool, flat_text: bool) -> Meaning:
    _refuse_folder(layout)
    _require_no_joint_block(layout)
    names = (*layout.weights, *layout.alphas)
    table = SdNextTable(layout.base, names, dotted_peft=dotted_peft, flat_text=flat_text)
    return meaning_by_table(layout, table, _tables(layout.base).comfyui)


SDNEXT_RULES: tuple[Rule, ...] = tuple(
    partial(_sdnext_rule, dotted_peft=dotted, flat_text=text)
    for dotted, text in product((False, True), repeat=2)
)
"""SD.Next, as it is and as it was before it took dotted names apart, and with either library."""


def _refuse_folder(layout: Layout) -> None:
    if layout.folder is not None:
        raise LoaderRefusesError("it does not know the names of a folder that peft has saved")


def _require_no_joint_block(layout: Layout) -> None:
    """Refuses to tell what AUTOMATIC1111 and SD.Next make of the blocks of SD3's original code.

    Some of these layers both load, and q, k and v in one they do not; SD.Next gives pictures what
    is for texts.

    Raises:
        UnknownEffectError: the file has such a name.
    """
    names = (name for name in (*layout.weights, *layout.alphas) if SD3_ORIGINAL in name)
    if layout.base.family == "sd3" and (name := next(names, None)) is not None:
        raise UnknownEffectError(
            f"AUTOMATIC1111 and SD.Next cannot use {name[:80]}, and may end there; Forge reads "
            "such names as ComfyUI does"
        )


@dataclass(frozen=True)
class _Tables:
    comfyui: KeyTable
    xlabs: KeyTable
    forge: KeyTable
    a1111: KeyTable


@once_per_base
def _tables(base: BaseModel) -> _Tables:
    """The tables of a base model."""
    return _Tables(comfyui_table(base), xlabs_table(base), forge_table(base), A1111Table(base))


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
    nowhere = (alpha_prefix(name) or "." for name in layout.naming.nowhere)
    used |= {f"{prefix}.alpha" for prefix in nowhere if "." not in prefix}
    header = [name for name in HEADER_ALPHAS if name in layout.header]
    return (*(name for name in layout.alphas if name not in used), *header)


def _scaled(layout: Layout, scale: Callable[[ModuleRef], float]) -> Meaning:
    layers = {ref: LayerScale(scale(ref)) for ref in layout.naming.parts}
    return Meaning(
        layers, {ref: group.own_scale for ref, (group, _) in layout.naming.stacked.items()}
    )


def _bare(prefix: str) -> str:
    """A layer's name without what the spellings differ by."""
    return _DECORATION.sub("", prefix)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
