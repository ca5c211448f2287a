"""What a loader with names of its own loads of a file: the tensors whose names it knows, no others.

Which layer diffusers makes of a name counts for nothing here. It serves to take apart what one
name holds of several layers, whose rows lie one under the other otherwise; and a tensor whose name
the loader does not know is left out only where that, or the widest of the tables, has told what it
is, a part of some layer of the base model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.factors import FactorGroup
from loragate_server.intake.loader_rules.key_tables import ALPHA, Hit, KeyTable, Refs
from loragate_server.intake.loader_rules.meaning import (
    LayerScale,
    Layout,
    LoaderRefusesError,
    Meaning,
    UnknownEffectError,
)
from loragate_server.intake.loader_rules.original_names import layer_refs
from loragate_server.intake.naming import BIAS, DOWN, MAGNITUDE, UP, Naming
from loragate_server.models.apply import layer_shape


@dataclass
class _Slot:
    """The tensors that a loader puts together."""

    parts: dict[str, tuple[str, Hit]] = field(default_factory=dict)

    def add(self, name: str, hit: Hit) -> None:
        if hit.part in self.parts:
            other, _ = self.parts[hit.part]
            raise UnknownEffectError(f"{other[:80]} and {name[:80]} are the same to it")
        self.parts[hit.part] = name, hit


def meaning_by_table(layout: Layout, table: KeyTable, widest: KeyTable) -> Meaning:
    """Every layer that the table has names for in the file, by its own alpha / rank.

    Args:
        layout: the file.
        table: the loader's names; it must miss none, for what it misses is taken to be left out.
        widest: names by which a tensor is known for what it is, though this loader lacks them.

    Raises:
        LoaderRefusesError: it knows no name of the file.
        UnknownEffectError: names are known in part, or several for one layer, or it knows none and
            nobody knows one of them.
    """
    hits = {
        name: hit
        for name in (*layout.weights, *layout.alphas)
        if (hit := table.find(name)) is not None
    }
    groups = _groups(layout)
    slots: dict[str, _Slot] = {}
    for name, hit in hits.items():
        if not groups.keys() & {name}:
            slots.setdefault(hit.slot, _Slot()).add(name, hit)
    naming, scales = Naming(plain=layout.naming.plain), {}
    for slot in slots.values():
        for ref in _place_plain(layout, naming, slot):
            scales[ref] = LayerScale(_scale(layout, slot))
    group_scales = dict(_place_groups(layout, naming, hits, groups, slots))
    left_out = _left_out(layout, hits, widest)
    if layout.weights and not any(name in layout.weights for name in hits):
        strange = next((name for name in layout.weights if name not in left_out), None)
        if strange is None:
            raise LoaderRefusesError("it knows none of the names of its layers")
        raise UnknownEffectError(f"no name is one that it is known to read, such as {strange[:80]}")
    return Meaning(scales, group_scales, naming=naming, left_out=left_out)


def _groups(layout: Layout) -> dict[str, FactorGroup]:
    """Name of a tensor to the factors that it is of."""
    return {name: group for group in layout.groups for name in group.names}


def _place_plain(layout: Layout, naming: Naming, slot: _Slot) -> Iterable[ModuleRef]:
    factors = [slot.parts[part] for part in (DOWN, UP) if part in slot.parts]
    if not factors:
        if "" in slot.parts:
            raise UnknownEffectError(f"it cannot use {slot.parts[''][0][:80]}, and may end there")
        return ()
    names = [name for name, _ in factors]
    if len(factors) == 1 or factors[0][1].way != factors[1][1].way:
        raise UnknownEffectError(
            f"it knows {names[0][:80]}, but not in one way with its other half"
        )
    refs, turned = factors[0][1].refs, factors[0][1].turned
    down, up = (layout.weights[name] for name in names)
    for ref in refs:
        if ref in naming.parts:
            raise UnknownEffectError(f"layer {ref.module} has several names that it knows")
        own = {DOWN: down, UP: _turned(up)} if turned else _converted(layout, ref, *names)
        if own is None:
            own = _own_rows(layout, refs, ref, down, up)
        if own is None:
            continue  # rows of several layers that were not taken apart stay unaccounted for
        naming.parts[ref] = own
        naming.sources[ref, DOWN], naming.sources[ref, UP] = (frozenset([name]) for name in names)
        if turned:
            naming.turned.add(ref)
        for part in own.keys() & {BIAS, MAGNITUDE}:
            naming.sources[ref, part] = layout.naming.sources[ref, part]
    return tuple(ref for ref in refs if ref in naming.parts)


def _turned(up: Tensor) -> Tensor:
    """The other half of the rows first, as the layer has them."""
    return up.roll(len(up) // 2, 0) if up.dim() else up


def _own_rows(
    layout: Layout, refs: Refs, ref: ModuleRef, down: Tensor, up: Tensor
) -> dict[str, Tensor] | None:
    """The factors of one of the layers that a name is for; None where rows are left or missing."""
    if len(refs) == 1:
        return {DOWN: down, UP: up}
    counts = [_rows(layout, each) for each in refs]
    if not up.dim() or len(up) != sum(counts):
        return None
    first = sum(counts[: refs.index(ref)])
    return {DOWN: down, UP: up[first : first + _rows(layout, ref)]}


def _converted(layout: Layout, ref: ModuleRef, down: str, up: str) -> dict[str, Tensor] | None:
    """The parts that the conversion made of these tensors and no others for the layer."""
    sources = [layout.naming.sources.get((ref, part)) for part in (DOWN, UP)]
    if sources == [frozenset([down]), frozenset([up])]:
        return dict(layout.naming.parts[ref])
    return None


def _scale(layout: Layout, slot: _Slot) -> float:
    down, hit = slot.parts[DOWN]
    # of what the file has, though the conversion took several layers out of one factor
    rank = len(layout.weights[down]) if layout.weights[down].dim() else 0
    if ALPHA not in slot.parts or hit.unscaled or not rank:
        return 1.0
    name, _ = slot.parts[ALPHA]
    if name not in layout.alphas:
        raise UnknownEffectError(f"{name[:80]} is no single number")
    return float(layout.alphas[name].item()) / rank


def _place_groups(
    layout: Layout,
    naming: Naming,
    hits: Mapping[str, Hit],
    groups: Mapping[str, FactorGroup],
    slots: Mapping[str, _Slot],
) -> Iterable[tuple[ModuleRef, float]]:
    for group in {id(group): group for group in groups.values()}.values():
        own = [hits[name] for name in group.names if name in hits]
        if not own:
            continue
        if len(own) < len(group.names) or len({hit.slot for hit in own}) > 1:
            raise UnknownEffectError(f"it knows {group.prefix[:80]} in part")
        slot = slots.get(own[0].slot, _Slot())
        alpha = slot.parts.get(ALPHA)
        seen = alpha[0] if alpha else f"{group.prefix}.alpha" if group.alpha is None else ""
        if slot.parts.keys() - {ALPHA} or seen != f"{group.prefix}.alpha":
            raise UnknownEffectError(f"{group.prefix[:80]} has several names that it knows")
        for ref in own[0].refs:
            rows = slice(0, group.out_features)
            counts = [_rows(layout, each) for each in own[0].refs]
            converted = layout.naming.stacked.get(ref)
            if len(counts) > 1 and converted is not None and converted[0] is group:
                rows = converted[1]
            elif rows.stop != sum(counts) or any(hit.turned for hit in own):
                # It fits no layer, so nothing of its size is made; or its halves are turned, and
                # rows that are not in the layer's order cannot be told.
                continue
            else:
                first = sum(counts[: own[0].refs.index(ref)])
                rows = slice(first, first + _rows(layout, ref))
            if ref in naming.parts or ref in naming.stacked:
                raise UnknownEffectError(f"layer {ref.module} has several names that it knows")
            naming.stacked[ref] = group, rows
            yield ref, group.own_scale


def _rows(layout: Layout, ref: ModuleRef) -> int:
    layer = layer_shape(layout.base.components[ref.component].get_submodule(ref.module))
    return int(layer.weight.shape[0])


def _left_out(layout: Layout, hits: Mapping[str, Hit], widest: KeyTable) -> frozenset[str]:
    """Tensors without a name that the loader knows, all of whose layers the base model has."""
    known = layer_refs(layout.base)
    reached: dict[str, bool] = {}
    for (ref, _), names in layout.naming.sources.items():
        for name in names:
            reached[name] = reached.get(name, True) and ref in known
    for ref, (group, _) in layout.naming.stacked.items():
        for name in group.names:
            reached[name] = reached.get(name, True) and ref in known
    for name in layout.weights:
        if not reached.get(name) and (told := widest.find(name)) is not None:
            reached[name] = bool(told.refs) and bool(told.part)
    return frozenset(name for name, real in reached.items() if real and name not in hits)
