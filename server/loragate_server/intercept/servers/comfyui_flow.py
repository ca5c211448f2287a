"""Which LoRAs a ComfyUI graph applies at the same time: they flow along links to where it samples.

A loader that no sampler takes its model from is never applied, and samplers may take theirs from
different places of one chain. Where a class is not known, every way in which it could hand on what
it takes is followed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from itertools import product
from typing import Any

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.findings import Found
from loragate_server.intercept.reading.sets import MOST_ADAPTERS, used_at
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import ambiguous_adapter, place_of
from loragate_server.intercept.servers.comfyui_graph import Node, is_link
from loragate_server.intercept.servers.comfyui_numbers import Numbers
from loragate_server.intercept.servers.comfyui_tags import is_lora_class

Parts = frozenset[tuple[int, str, float]]
"""What is applied: number of the adapter, to which model of the two, and how many times."""

_NOTHING: frozenset[Parts] = frozenset({Parts()})
_DENOISER, _TEXT_ENCODER = "model", "clip"
_MOST_WAYS = 32
_MOST_WAYS_OF_ALL = 512
"""Of all samplers together. No audit judges so many."""
_MOST_NODES = 5000
"""Larger graphs are not followed; nothing in them is certain."""
_STACK = re.compile(r"stack", re.IGNORECASE)
_CHOOSES = re.compile(r"switch|select|random|any|pick|choose|if\b|index", re.IGNORECASE)
# Inputs that hold neither a model nor what a text encoder made.
_DATA = re.compile(
    r"(.*_)?(latents?|samples?|images?|pixels|masks?|sigmas|noise|vae|control_net|clip_vision"
    r"|seed|steps|cfg|denoise|width|height)(_(image|output|opt|prefix))?(_?\d+)?"
    r"|sampler|upscale_model|style_model|ipadapter",
    re.IGNORECASE,
)
_CONDITION = re.compile(
    r"(.*_)?(positive|negative|conditioning|cond|clip)\d*(_(\d|to|from|new|default|opt)\d*)*",
    re.IGNORECASE,
)
_MODEL = re.compile(r"model|guider|pipe", re.IGNORECASE)
_SIMPLE_MERGES = {
    "ModelMergeSimple": ("model1", "model2"),
    "CLIPMergeSimple": ("clip1", "clip2"),
}
# Take a model without running it.
_INERT = frozenset({"BasicScheduler", "SDTurboScheduler", "ModelSave", "CLIPSave", *_SIMPLE_MERGES})
_MERGES = re.compile(r"^(Model|CLIP)(Merge|Add|Subtract)", re.IGNORECASE)
_KEYFRAMES = re.compile(r"HookKeyframe", re.IGNORECASE)
_SLOTS = {
    "LoraLoader": (_DENOISER, _TEXT_ENCODER),
    "LoraLoaderModelOnly": (_DENOISER,),
    "Power Lora Loader (rgthree)": (_DENOISER, _TEXT_ENCODER),
    "CR Apply LoRA Stack": (_DENOISER, _TEXT_ENCODER),
}
"""Classes whose outputs are known: the model, and the text encoder."""


def applied_together(
    found: Sequence[Found], owners: Sequence[str | None], nodes: Mapping[str, Node]
) -> tuple[list[Found], list[frozenset[int]]]:
    """The LoRAs of one graph at the strengths of every sampler, and which of them act together.

    Args:
        found: the LoRAs of the graph.
        owners: for each, the node that applies it; None where that may be any, or none.
        nodes: of the graph.

    Raises:
        RefusedRequestError: ADAPTER_AMBIGUOUS for a node that computes with models.
    """
    if len(found) > MOST_ADAPTERS or len(nodes) > _MOST_NODES:
        return list(found), []
    owned: dict[str, list[int]] = {}
    for number, owner in enumerate(owners):
        if owner is not None:
            owned.setdefault(owner, []).append(number)
    flow = _Flow(nodes, owned)
    try:
        order = list(TopologicalSorter(_links(nodes)).static_order())
    except CycleError:  # no server runs it, so nothing is certain
        return list(found), []
    ways = {way for key in order if key in nodes for way in flow.uses_in(nodes[key]) if way}
    if flow.gave_up or len(ways) > _MOST_WAYS_OF_ALL:
        return list(found), []
    muted = {n for n, owner in enumerate(owners) if owner is not None and nodes[owner].muted}
    ways |= {Parts(one for one in way if one[0] not in muted) for way in ways}
    return _at_ways(found, sorted(ways, key=len, reverse=True))


def _at_ways(
    found: Sequence[Found], ways: Iterable[Parts]
) -> tuple[list[Found], list[frozenset[int]]]:
    """The LoRAs at the strengths of all samplers, for the models to which these apply them."""
    strengths: list[list[Strength]] = [[] for _ in found]
    sets: list[frozenset[int]] = []
    for way in ways:
        active, still = set(), set()
        for number in {n for n, _, _ in way}:
            at = _scaled(found[number].reference.strengths, number, way)
            idle = not any(map(_acts, found[number].reference.strengths))
            telling = [one for one in at if idle or _acts(one)]
            strengths[number] += telling
            if telling:
                active.add(number)
            if len(telling) < len(at):
                still.add(number)
        sets += [frozenset(active), frozenset(active - still)]
    return [
        replace(one, reference=used_at(one.reference, forces)) if forces else one
        for one, forces in zip(found, strengths, strict=True)
    ], sets


def _acts(strength: Strength) -> bool:
    return bool(strength.denoiser or strength.text_encoder)


def _scaled(strengths: Iterable[Strength], number: int, way: Parts) -> list[Strength]:
    """The strengths of a LoRA in one way; 0 for the model that it is not applied to."""
    times = {
        part: [scale for n, to, scale in sorted(way) if (n, to) == (number, part)] or [0.0]
        for part in (_DENOISER, _TEXT_ENCODER)
    }
    return [
        Strength(one.denoiser * first, one.text_encoder * second)
        for one in strengths
        for first, second in product(times[_DENOISER], times[_TEXT_ENCODER])
    ]


def _links(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    """For every node, those that it takes from."""
    return {
        node.key: [value[0] for value in node.inputs.values() if is_link(value)]
        for node in nodes.values()
    }


@dataclass
class _Flow:
    """Follows links. `gave_up` says that there are more ways than can be told apart."""

    nodes: Mapping[str, Node]
    owned: Mapping[str, Sequence[int]]
    gave_up: bool = False
    _known: dict[tuple[str, int], frozenset[Parts]] = field(default_factory=dict)
    _takers: dict[str, set[str]] | None = None

    @cached_property
    def numbers(self) -> Numbers:
        """What comes by links as numbers."""
        return Numbers(self.nodes)

    def uses_in(self, node: Node) -> frozenset[Parts]:
        """What may be active together while a node runs; nothing for one that runs no model.

        To be asked for every node, after those that it takes from.
        """
        models, conditions = self._taken(node)
        if self._hands_on(node, models, conditions):
            return _NOTHING
        if self._loads(node):
            return self._limited(self._loaded(node, 0, {**models, **conditions}))
        return self._joint(models, conditions) if models else _NOTHING

    def out(self, key: str, slot: int) -> frozenset[Parts]:
        """The ways in which an output of a node may carry LoRAs."""
        node = self.nodes.get(key)
        if node is None:
            return _NOTHING
        if node.class_type not in _SLOTS:
            slot = 0  # whichever it is, nobody knows what comes out of it
        if (key, slot) not in self._known:
            self._known[key, slot] = self._limited(self._made(node, slot))
        return self._known[key, slot]

    def _made(self, node: Node, slot: int) -> frozenset[Parts]:
        if node.class_type in _SIMPLE_MERGES:
            return self._merged(node)
        models, conditions = self._taken(node)
        ways = [*models.values(), *conditions.values()]
        merges = _MERGES.search(node.class_type) and any(map(any, ways))
        if merges or _KEYFRAMES.search(node.class_type):
            raise ambiguous_adapter(
                place_of(node.key),
                "computes with models, so that nobody can say how strongly a LoRA acts.",
                "Leave the node out, or apply LoRAs behind it.",
            )
        if self._loads(node):
            return self._loaded(node, slot, {**models, **conditions})
        if models and conditions:
            return self._joint(models, conditions)
        each = frozenset(way for one in ways for way in one) or _NOTHING
        return each | {_all(ways)} if len(ways) > 1 else each

    def _loads(self, node: Node) -> bool:
        return bool(self.owned.get(node.key) or is_lora_class(node.class_type))

    def _loaded(
        self, node: Node, slot: int, taken: Mapping[str, frozenset[Parts]]
    ) -> frozenset[Parts]:
        """A node of LoRAs adds its own to what it takes."""
        slots = _SLOTS.get(node.class_type)
        parts = _slot(slots, slot) if slots else (_DENOISER, _TEXT_ENCODER)
        own = Parts((n, part, 1.0) for n in self.owned.get(node.key, ()) for part in parts)
        trunk = [
            ways
            for name, ways in taken.items()
            if not slots or name in parts or name not in (_DENOISER, _TEXT_ENCODER)
        ]
        if slots:
            trunk = [_only(ways, parts) for ways in trunk]
        ways = self._crossed(trunk)
        if _CHOOSES.search(node.class_type):
            ways |= {way for one in trunk for way in one}
        return frozenset(way | own for way in ways)

    def _merged(self, node: Node) -> frozenset[Parts]:
        """Two models, weighted: the LoRAs of each count as much as it does."""
        one, other = (self._from(node.inputs.get(name)) for name in _SIMPLE_MERGES[node.class_type])
        value: Any = node.inputs.get("ratio", 1.0)
        place = place_of(node.key, "inputs", "ratio")
        ratio = self.numbers.behind(value, place) if is_link(value) else strength(value, place)
        return frozenset(
            _sum(first, ratio, second, 1.0 - ratio) for first, second in product(one, other)
        )

    def _taken(self, node: Node) -> tuple[dict[str, frozenset[Parts]], dict[str, frozenset[Parts]]]:
        """What comes in as models, and as what a text encoder made."""
        models, conditions, empty = {}, {}, {}
        for name, value in node.inputs.items():
            if not is_link(value) or _DATA.fullmatch(name):
                continue
            ways = self._from(value)
            if _CONDITION.fullmatch(name):
                conditions[name] = ways
            elif ways != _NOTHING or _MODEL.search(name):
                models[name] = ways
            else:
                empty[name] = ways
        if models and not any(map(_MODEL.search, models)):
            models |= empty  # one of several that are called alike, of which the node takes one
        return models, conditions

    def _from(self, link: Any) -> frozenset[Parts]:
        return self.out(link[0], int(link[1])) if is_link(link) else _NOTHING

    def _hands_on(self, node: Node, models: Collection[str], conditions: Collection[str]) -> bool:
        """Whether a node only changes a model, for others to run it."""
        if node.class_type in _INERT or node.class_type in _SLOTS:
            return True
        takers = self._taken_by().get(node.key, set())
        if self._loads(node):
            links = any(map(is_link, node.inputs.values()))
            if _STACK.search(node.class_type) and not links:
                return True
            return bool(takers) and not any(map(_DATA.fullmatch, takers))
        return set(models) == {_DENOISER} == takers and not conditions

    def _taken_by(self) -> dict[str, set[str]]:
        """For every node, the names of the inputs that take from it."""
        if self._takers is None:
            self._takers = {}
            for node in self.nodes.values():
                for name, value in node.inputs.items():
                    if is_link(value):
                        self._takers.setdefault(value[0], set()).add(name)
        return self._takers

    def _joint(
        self, models: Mapping[str, frozenset[Parts]], conditions: Mapping[str, frozenset[Parts]]
    ) -> frozenset[Parts]:
        """A node runs one of the models that it takes, on one of the conditions."""
        first = {way for ways in models.values() for way in ways}
        second = {way for ways in conditions.values() for way in ways} or {Parts()}
        return frozenset(self._crossed([frozenset(first), frozenset(second)]))

    def _crossed(self, trunk: Sequence[frozenset[Parts]]) -> set[Parts]:
        """One way of each input, all at once."""
        self.gave_up |= _more_than(_MOST_WAYS, map(len, trunk))
        return {_all(trunk)} if self.gave_up else {_all([ways]) for ways in product(*trunk)}

    def _limited(self, ways: frozenset[Parts]) -> frozenset[Parts]:
        self.gave_up |= len(ways) > _MOST_WAYS
        return frozenset({_all([ways])}) if self.gave_up else ways


def _more_than(most: int, counts: Iterable[int]) -> bool:
    """Whether there are more ways to take one of each."""
    total = 1
    for count in counts:
        total *= count
        if total > most or not total:
            break
    return total > most


def _slot(slots: Sequence[str], slot: int) -> Sequence[str]:
    """An output by its number, which ComfyUI counts from the end where it is negative."""
    return [slots[slot]] if -len(slots) <= slot < len(slots) else []


def _all(ways: Iterable[Iterable[Parts]]) -> Parts:
    """Everything that any way carries."""
    return Parts().union(*{way for one in ways for way in one})


def _only(ways: frozenset[Parts], parts: Collection[str]) -> frozenset[Parts]:
    return frozenset(Parts(one for one in way if one[1] in parts) for way in ways)


def _sum(first: Parts, ratio: float, second: Parts, rest: float) -> Parts:
    total: dict[tuple[int, str], float] = {}
    for way, times in ((first, ratio), (second, rest)):
        for number, part, scale in way:
            total[number, part] = total.get((number, part), 0.0) + scale * times
    return Parts((number, part, scale) for (number, part), scale in total.items())
