"""Whether a node of ComfyUI surely applies a LoRA that stands in its inputs.

A LoRA that a node does not read must not count as company of those that are applied. ComfyUI passes
over inputs that a node does not have, and nodes for several LoRAs over those that are switched off
or lie beyond a count. So only of classes whose source is known a request tells what is applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from loragate_server.intercept.reading.lora_words import speaks_of_lora
from loragate_server.intercept.servers.comfyui_graph import LISTS, RGTHREE, Node, Value
from loragate_server.intercept.servers.comfyui_tags import is_lora_class
from loragate_server.intercept.servers.comfyui_words import is_none, says_how

_SWITCH = re.compile(
    r"(^|_)(toggle|switch|bypass|enabled?|active|disabled?|on|off|count|num|number)(_|$)",
    re.IGNORECASE,
)
"""Parts of names that may say whether LoRAs are applied, or how many."""


def _always(*_: Any) -> bool:
    return True


def _switched_on(inputs: Mapping[str, Any], number: int) -> bool:
    return bool(inputs.get(f"switch_{number}") == "On")


def _counted(by: str) -> Callable[[Mapping[str, Any], int], bool]:
    def applies(inputs: Mapping[str, Any], number: int) -> bool:
        count = inputs.get(by)
        return type(count) is int and number <= count and inputs.get("toggle", True) is True

    return applies


def _on(row: Mapping[str, Any], _: int) -> bool:
    return row.get("on") is True and "strength" in row


def _active(row: Mapping[str, Any], _: int) -> bool:
    return row.get("active") is True


@dataclass(frozen=True)
class _Reader:
    """What a class of nodes reads.

    Attributes:
        inputs: their names, with the number of the LoRA where there is one.
        below: the members that lead from there to the name of the LoRA.
        applies: from what stands beside the name, and the number, whether the LoRA is applied.
    """

    inputs: re.Pattern[str]
    below: tuple[str, ...] = ()
    applies: Callable[[Mapping[str, Any], int], bool] = _always

    def reads(self, one: Value) -> bool:
        """Whether a node of this class applies the LoRA that one of its strings names."""
        match = self.inputs.fullmatch(one.names[0])
        if match is None or one.names[1:] != self.below:
            return False
        return self.applies(one.holder, int(match[1]) if match.groups() else 0)


_ONE = _Reader(re.compile("lora_name"))
_READERS: Mapping[str, _Reader] = {
    **dict.fromkeys(
        (
            *("LoraLoader", "LoraLoaderModelOnly", "CreateHookLora", "CreateHookLoraModelOnly"),
            *("LoraLoaderBypass", "LoraLoaderBypassModelOnly", "LoraLoader|pysssss"),
            *("Efficient Loader", "NunchakuFluxLoraLoader"),
        ),
        _ONE,
    ),
    "WanVideoLoraSelect": _Reader(re.compile("lora")),
    "WanVideoLoraSelectMulti": _Reader(re.compile("lora_[0-4]")),
    "Lora Loader Stack (rgthree)": _Reader(re.compile("lora_0[1-4]")),
    RGTHREE: _Reader(re.compile("(?i:lora_).*", re.DOTALL), ("lora",), _on),
    **dict.fromkeys(LISTS, _Reader(re.compile("loras"), ("name",), _active)),
    "CR LoRA Stack": _Reader(re.compile("lora_name_([1-3])"), (), _switched_on),
    "LoRA Stacker": _Reader(re.compile("lora_name_([1-9][0-9]?)"), (), _counted("lora_count")),
    "easy loraStack": _Reader(re.compile("lora_([1-9][0-9]?)_name"), (), _counted("num_loras")),
}
"""By class, of those whose source is known."""


class Certain:
    """What is certain in one graph. Each node that nobody knows is looked through once."""

    def __init__(self) -> None:
        self._single: dict[str, bool] = {}

    def applies(self, one: Value, node: Node) -> bool:
        """Whether a node applies the LoRA that one of its strings names, whenever it runs."""
        if reader := _READERS.get(node.class_type):
            return reader.reads(one)
        if len(one.names) > 1 or not is_lora_class(node.class_type):
            return False
        if node.key not in self._single:
            self._single[node.key] = _names_one(node)
        return self._single[node.key]


def _names_one(node: Node) -> bool:
    """Whether a node of LoRAs that nobody knows names a single one, and has no switch for it."""
    named = 0
    for name, value in node.inputs.items():
        if _SWITCH.search(name):
            return False
        if isinstance(value, str | dict | list) and speaks_of_lora(name) and not says_how(name):
            named += not (isinstance(value, str) and is_none(value))
    return named < 2
