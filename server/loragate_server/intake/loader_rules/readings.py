"""The distinct meanings of a file, each with the loaders that read it so."""

from __future__ import annotations

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
from loragate_server.intake.naming import DOWN, UP, Naming

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

    Raises:
        NoDecisionError: ADAPTER_METADATA_INVALID, a configuration that no loader could use.
    """
    found: dict[Hashable, tuple[list[str], Meaning]] = {}
    refused: dict[str, str] = {}
    unknown: dict[str, str] = {}

    def add(loader: str, meaning: Meaning) -> None:
        found.setdefault(_sameness(layout, meaning), ([], meaning))[0].append(loader)

    for loader, rule in ((name, rule) for name in loaders for rule in RULES[name]):
        try:
            add(loader, rule(layout))
        except LoaderRefusesError as error:
            refused[loader] = str(error)
        except UnknownEffectError as error:
            unknown[loader] = str(error)
    for names, _ in found.values():
        refused = {loader: why for loader, why in refused.items() if loader not in names}
    if any(not meaning.sane for _, meaning in found.values()) or unused_scales(layout):
        add(UNSCALED, unscaled_rule(layout))
        add(EVERY_SCALE, every_scale_rule(layout))
    meanings = tuple((tuple(dict.fromkeys(names)), one) for names, one in found.values())
    return Read(meanings, refused, unknown)


def _sameness(layout: Layout, meaning: Meaning) -> Hashable:
    """Equal for meanings of the same tensors that differ by rounding at most."""
    naming = meaning.naming or layout.naming
    layers = {
        (ref, f"{one.scale:.6g}", one.dora, one.bias, *_of_which(naming, ref))
        for ref, one in meaning.layers.items()
    }
    groups = {
        (ref, f"{scale:.6g}", naming.stacked[ref][0].prefix)
        for ref, scale in meaning.groups.items()
    }
    return frozenset(layers), frozenset(groups)


def _of_which(naming: Naming, ref: ModuleRef) -> tuple[frozenset[str], ...]:
    return tuple(naming.sources.get((ref, part), frozenset()) for part in (DOWN, UP))
