"""Looks at a graph before it is queued, so that its sender is told at once and in a sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import PureWindowsPath
from typing import Any

from .gate import ComfyGate
from .nodes import DENIED

log = logging.getLogger("loragate")


class PromptGate:
    """The handler for `add_on_prompt_handler`.

    ComfyUI swallows what a handler raises and runs the graph as it was. So this one never raises:
    it puts a graph in its place whose only node refuses to be run, with the reason as the sentence
    that ComfyUI answers. A LoRA that it does not recognise is still audited when it is loaded.
    """

    def __init__(self, gate: ComfyGate, list_loras: Callable[[], list[str]]) -> None:
        self._gate = gate
        self._list_loras = list_loras

    def on_prompt(self, json_data: Any) -> Any:
        """Returns the request, or one that will be refused."""
        try:
            for name, strength, clip in self._named(json_data):
                self._gate.admit_name(name, strength, clip)
        except Exception as error:
            log.warning("A graph was refused: %s", error)
            return _refused(json_data, str(error))
        return json_data

    def _named(self, json_data: Any) -> Iterator[tuple[str, float, float]]:
        """Name and strengths of each LoRA in the graph: any input of any node may name one."""
        if not isinstance(json_data, dict) or not isinstance(json_data.get("prompt"), dict):
            return  # ComfyUI refuses it by itself
        known = {_plain(name): name for name in self._list_loras()}
        for node in json_data["prompt"].values():
            inputs = node.get("inputs") if isinstance(node, dict) else None
            if not isinstance(inputs, dict):
                continue
            strength = _number(inputs, "strength_model", _number(inputs, "strength", 1.0))
            clip = _number(inputs, "strength_clip", strength)
            for text in _texts(inputs):
                if _plain(text) in known and (strength or clip):
                    yield known[_plain(text)], strength, clip


def _refused(json_data: Any, reason: str) -> dict[str, Any]:
    """The request with another graph, and without what was to be run of the old one."""
    denied = {"class_type": DENIED, "inputs": {"reason": reason}}
    sender = {"client_id": json_data["client_id"]} if "client_id" in json_data else {}
    return {"prompt": {"1": denied}, **sender}


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _plain(name: str) -> str:
    """A name with forward slashes, as Windows clients send the other ones."""
    return PureWindowsPath(name).as_posix()


def _number(inputs: dict[str, Any], name: str, otherwise: float) -> float:
    value = inputs.get(name)
    return float(value) if isinstance(value, int | float) else otherwise
