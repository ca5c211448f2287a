"""The distinct meanings of a file, each with the loaders that read it so."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from loragate_server.adapter.adapter import ModuleRef
from loragate_server.intake.loader_rules.diffusers_rule import diffusers_rule
from loragate_server.intake.loader_rules.meaning import (
    Layout,
    LoaderRefusesError,
    Meaning,
    Rule,
    UnknownEffectError,
)
from loragate_server.intake.loader_rules.names import EVERY_SCALE, LOADERS, UNSCALED
from loragate_server.intake.loader_rules.peft_rule import peft_rule
from loragate_server.intake.loader_rules.sglang_rule import sglang_fused_rule, sglang_rule
from loragate_server.intake.loader_rules.tensor_rule import (
    SDNEXT_RULES,
    a1111_rule,
    comfyui_rule,
    every_scale_rule,
    forge_rule,
    unscaled_rule,
    unused_scales,
)
from loragate_server.intake.loader_rules.vllm_omni_rule import (
    vllm_omni_chosen_rule,
    vllm_omni_file_rule,
    vllm_omni_folder_rule,
)
from loragate_server.intake.naming import Naming

RULES: Mapping[str, tuple[Rule, ...]] = {
    "diffusers": (diffusers_rule,),
    "peft": (peft_rule,),
    "comfyui": (comfyui_rule,),
    "a1111": (a1111_rule, forge_rule, *SDNEXT_RULES),
    "sglang": (sglang_rule, sglang_fused_rule),
    "vllm-omni": (vllm_omni_file_rule, vllm_omni_folder_rule, vllm_omni_chosen_rule),
}
"""By loader, one rule for each way in which it can be told to load the same bytes."""


@dataclass(frozen=True)
class Read:
    """What the loaders make of a file.

    Attributes:
        meanings: each distinct one, with the loaders that share it.
        refused: loaders that would not load the file, and why.
        unknown: loaders of which it cannot be told what they would do, and why.
    """

    meanings: tuple[tuple[tuple[str, ...], Meaning], ...]
    refused: Mapping[str, str]
    unknown: Mapping[str, str]


def read_layout(layout: Layout, loaders: Sequence[str] = LOADERS) -> Read:
    """Asks the rule of every loader.

    A scale that is negative, zero or beyond what ordinary files have, and an alpha that a loader
    leaves unused, may be read otherwise by a loader of another version. Then the file is also read
    as if no scale counted, and as if every one did, under the names `UNSCALED` and `EVERY_SCALE`.
    What comes out does not depend on the order of `loaders`.

    Raises:
        NoDecisionError: ADAPTER_METADATA_INVALID, a configuration that no loader could use.
    """
    found: dict[Hashable, tuple[list[str], Meaning]] = {}
    refused: dict[str, str] = {}
    unknown: dict[str, str] = {}

    def add(loader: str, meaning: Meaning) -> None:
        found.setdefault(_sameness(layout, meaning), ([], meaning))[0].append(loader)

    in_order = sorted(set(loaders), key=LOADERS.index)
    for loader, rule in ((name, rule) for name in in_order for rule in RULES[name]):
        try:
            add(loader, rule(layout))
        except LoaderRefusesError as error:
            refused[loader] = str(error)
        except UnknownEffectError as error:
            unknown[loader] = str(error)
    for names, _ in found.values():
        refused = {loader: why for loader, why in refused.items() if loader not in names}
    whole = _with_names_of_tables(layout, [meaning for _, meaning in found.values()])
    if any(not meaning.sane for _, meaning in found.values()) or unused_scales(whole):
        left_out = _left_out_by_all([meaning for _, meaning in found.values()])
        for name, rule in ((UNSCALED, unscaled_rule), (EVERY_SCALE, every_scale_rule)):
            add(name, dataclasses.replace(rule(whole), naming=whole.naming, left_out=left_out))
    meanings = tuple((tuple(dict.fromkeys(names)), one) for names, one in found.values())
    return Read(meanings, refused, unknown)


def _left_out_by_all(meanings: Sequence[Meaning]) -> frozenset[str]:
    each = [meaning.left_out for meaning in meanings]
    return each[0].intersection(*each) if each else frozenset()


def _with_names_of_tables(layout: Layout, meanings: Sequence[Meaning]) -> Layout:
    """The layout with layers of tensors whose names a table knows, though diffusers does not."""
    reached = _reached(layout.naming)
    if layout.weights.keys() <= reached:
        return layout
    naming = Naming(
        layout.naming.state,
        layout.naming.plain,
        dict(layout.naming.parts),
        dict(layout.naming.sources),
        dict(layout.naming.stacked),
        set(layout.naming.turned),
        layout.naming.nowhere,
    )
    for told in (meaning.naming for meaning in meanings if meaning.naming is not None):
        before = naming.parts.keys() | naming.stacked.keys()
        for ref, parts in told.parts.items():
            sources = {part: told.sources[ref, part] for part in parts}
            if ref not in before and not any(names & reached for names in sources.values()):
                naming.parts[ref] = parts
                naming.sources.update({(ref, part): names for part, names in sources.items()})
                naming.turned |= told.turned & {ref}
        for ref, (group, rows) in told.stacked.items():
            if ref not in before and not reached & set(group.names):
                naming.stacked[ref] = group, rows
    return dataclasses.replace(layout, naming=naming)


def _reached(naming: Naming) -> frozenset[str]:
    """The tensors of which the layer is known."""
    stacked = (name for group, _ in naming.stacked.values() for name in group.names)
    return frozenset(stacked).union(*naming.sources.values())


def _sameness(layout: Layout, meaning: Meaning) -> Hashable:
    """Equal for meanings of the same tensors that differ by rounding at most.

    Meanings of which one accounts for a tensor and the other does not are two: if one stood for
    both, its loaders' certainty, or doubt, would be the other's, too.
    """
    naming = meaning.naming or layout.naming
    layers = {
        (ref, f"{one.scale:.6g}", one.dora, one.bias, ref in naming.turned, _sources(naming, ref))
        for ref, one in meaning.layers.items()
    }
    groups = {
        (ref, f"{scale:.6g}", group.prefix, rows.start, rows.stop)
        for ref, scale in meaning.groups.items()
        for group, rows in [naming.stacked[ref]]
    }
    passed_over = meaning.passed_over_of(layout.base)
    settled = meaning.layers.keys() | meaning.groups.keys() | passed_over
    return (
        frozenset(layers),
        frozenset(groups),
        passed_over,
        meaning.unaccounted(layout, settled),
    )


def _sources(naming: Naming, ref: ModuleRef) -> frozenset[tuple[str, frozenset[str]]]:
    """What each part of a layer was made of."""
    return frozenset((part, naming.sources[ref, part]) for part in naming.parts[ref])
