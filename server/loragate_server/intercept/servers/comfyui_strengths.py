"""At which strengths a node of ComfyUI may apply the LoRA that one of its strings names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.reading.strengths import strength
from loragate_server.intercept.refusals import ambiguous_adapter, place_of
from loragate_server.intercept.servers.comfyui_blocks import refuse_parts
from loragate_server.intercept.servers.comfyui_graph import (
    RGTHREE,
    Node,
    Value,
    is_link,
    is_plot,
)
from loragate_server.intercept.servers.comfyui_links import place_in
from loragate_server.intercept.servers.comfyui_numbers import Numbers

_CORE = frozenset({"LoraLoader", "LoraLoaderModelOnly"})
_CORE_MODEL, _CORE_CLIP = ("strength_model",), ("strength_clip",)
_MODEL = ("strength_model", "model_weight", "model_strength", "lora_model_strength", "model_str")
_CLIP = (
    "strength_clip",
    "clip_weight",
    "clip_strength",
    "lora_clip_strength",
    "clip_str",
    "clipStrength",
)
_BOTH = (
    "strength",
    "weight",
    "lora_wt",
    "lora_weight",
    "lora_strength",
    "lora_scale",
    "lora_multiplier",
    "scale",
    "multiplier",
    "strength_high",
    "strength_low",
    "strength_high_noise",
    "strength_low_noise",
)
_TWO = ("strengthTwo", "strength_two", "strengthtwo")
_STEMS = frozenset((*_MODEL, *_CLIP, *_BOTH, *_TWO))
_INFIX = re.compile(r"lora_(\d+)_(.+)")
_MOST = 16
"""Of more inputs that may all hold the strength of one LoRA, no node is known."""

_Entry = tuple[int, str, Any]
"""Which of the inputs it is, its name and its value."""
_Index = Mapping[tuple[str, str], list[_Entry]]
"""From a stem and a number to the inputs that are called so."""


class Strengths:
    """The strengths of a graph. Each object of inputs is looked through once."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.linked = Numbers(nodes)
        self._indices: dict[int, _Index] = {}
        self._given: dict[tuple[str, int, str], tuple[Strength, ...]] = {}
        self._whole: set[str] = set()

    def given(self, value: Value, node: Node, place: str) -> tuple[Strength, ...]:
        """Every strength at which a node may apply the LoRA that one of its strings names.

        Nodes of one class take their strengths from some of the inputs that may hold them. Which,
        only the classes of ComfyUI itself and of widespread packs tell. Empty where none is given.

        Raises:
            RefusedRequestError: a strength is no number, made while the graph runs, or one of many
                for the parts of a model, which an audit of the whole cannot follow.
        """
        self.check_whole(node)
        listed = _in_list(value.numbers, place)
        holders = (value.holder, *value.around)
        for holder, name in zip(holders, reversed(value.names), strict=True):
            strengths = self._beside(holder, name, node, place)
            if strengths:
                return tuple(dict.fromkeys((*listed, *strengths)))
        return listed

    def check_whole(self, node: Node) -> None:
        """Refuses a node that applies parts of its LoRAs at strengths of their own, once.

        Raises:
            RefusedRequestError: ADAPTER_AMBIGUOUS or ADAPTER_UNNAMED.
        """
        if node.key not in self._whole:
            refuse_parts(node, self.linked)
            self._whole.add(node.key)

    def _beside(
        self, holder: Mapping[str, Any], name: str, node: Node, place: str
    ) -> tuple[Strength, ...]:
        """The strengths in one object for what stands in it under a name."""
        if id(holder) not in self._indices:
            self._indices[id(holder)] = _indexed(holder)
        index = self._indices[id(holder)]
        if not index and holder is not node.inputs:
            return ()  # an object around it has them
        _, number = split_number(name.removesuffix("_name"))
        key = node.key, id(holder), number
        if key not in self._given:
            strengths = self._of(node, index, number, place)
            if number and (is_plot(node) or not strengths):  # what all in the node have in common
                strengths += self._of(node, index, "", place)
            self._given[key] = strengths
        return self._given[key]

    def _of(self, node: Node, index: _Index, number: str, place: str) -> tuple[Strength, ...]:
        def numbers(stems: tuple[str, ...]) -> list[float]:
            return self._numbers((index.get((stem, number), ()) for stem in stems), node, place)

        model_only = node.class_type.endswith("ModelOnly")
        if node.class_type in _CORE:
            model, clip = numbers(_CORE_MODEL), [0.0] if model_only else numbers(_CORE_CLIP)
            return tuple(Strength(one, other) for one in model or [1.0] for other in clip or [1.0])
        both, model, clip = numbers(_BOTH), numbers(_MODEL), numbers(_CLIP)
        two = numbers(_TWO)
        mode = node.inputs.get("input_mode")
        if node.class_type == RGTHREE and both:
            return tuple(Strength(one, two[0] if two else one) for one in both)
        if mode == "simple" and both:
            return tuple(Strength(one, one) for one in both)
        if mode == "advanced" and model and clip:
            both = []
        clip += two
        if model_only:
            alone = [] if both or model else [1.0]
            return tuple(Strength(one, 0.0) for one in (*model, *both, *alone))
        pairs = [Strength(one, one) for one in both if model or not clip]
        if model or clip:
            firsts = model or both or [1.0]
            pairs += [Strength(one, two) for one in firsts for two in clip or [*both, one]]
        if pairs and not clip and is_link(node.inputs.get("model")) and "clip" not in node.inputs:
            pairs += [Strength(one.denoiser, 0.0) for one in pairs]
        return tuple(dict.fromkeys(pairs))

    def _numbers(self, entries: Iterable[Iterable[_Entry]], node: Node, place: str) -> list[float]:
        """The values of some inputs, in the order of the inputs."""
        found = sorted((one for each in entries for one in each), key=itemgetter(0))
        if len(found) > _MOST:
            raise ambiguous_adapter(place, "has many strengths.", "Send one strength.")
        numbers = []
        for _, name, item in found:
            if is_link(item):
                numbers.append(self.linked.behind(item, place_in(node, name)))
            else:
                numbers.append(strength(item, place_of(node.key, "inputs", name)))
        return numbers


def _in_list(numbers: Sequence[float], place: str) -> tuple[Strength, ...]:
    """The strengths of a LoRA in a list, as in a stack: for the model, and for the text encoder."""
    if len(numbers) > 2:
        raise ambiguous_adapter(
            place, "stands in a list with many numbers.", "Give it an input of its own."
        )
    if not numbers:
        return ()
    first, second = (strength(one, place) for one in (numbers[0], numbers[-1]))
    return (Strength(first, second),)


def split_number(name: str) -> tuple[str, str]:
    """A name without the number at its end, and that number in plain digits; empty without one."""
    end = len(name)
    while end and name[end - 1].isdecimal():
        end -= 1
    return name[:end], _plain(name[end:])


def _plain(digits: str) -> str:
    plain = "".join(str(unicodedata.decimal(one)) for one in digits)
    return plain.lstrip("0") or plain[:1]


def _indexed(holder: Mapping[str, Any]) -> _Index:
    index: dict[tuple[str, str], list[_Entry]] = {}
    for at, (name, item) in enumerate(holder.items()):
        if item is not None:
            for key in _keys(name):
                index.setdefault(key, []).append((at, name, item))
    return index


def _keys(name: str) -> set[tuple[str, str]]:
    """The stems and numbers that a name may stand for."""
    before, number = split_number(name)
    keys = {(before.removesuffix("_") if number else before, number)}
    if infix := _INFIX.fullmatch(name):
        keys.add((infix[2], _plain(infix[1])))
    return {key for key in keys if key[0] in _STEMS}
