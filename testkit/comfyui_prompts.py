"""Workflows as ComfyUI's page saves them, turned into the prompts that it sends to `/prompt`.

What the page does when somebody queues a workflow:

- A subgraph is put in the place of its instance; its nodes are called `instance:node`. What the
  instance says of a widget that leads outside wins over the value inside.
- Muted nodes are left out, with the links to them. Of a bypassed node every output is what comes
  in by the input of the same type, the one of the same number first.
- Reroutes, primitives and notes exist in the page alone: links go through reroutes, a primitive
  is the value that it holds, notes are nothing.
- Values of widgets stand in a list, in the order in which the node's class declares them, with
  one more behind each seed ("randomize"). A widget whose input is linked takes the link.

The list of values does not name the widgets; `comfyui_widgets.json` does, by class, from ComfyUI's
definitions of nodes and their documentation. A value beyond the known names is `widget_N`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

_WIDGETS = Path(__file__).with_name("comfyui_widgets.json")
_MUTED, _BYPASSED = 2, 4
_IN_THE_PAGE = frozenset({"Note", "MarkdownNote", "PrimitiveNode", "Reroute"})
_AFTER_A_SEED = frozenset({"fixed", "increment", "decrement", "randomize"})
_SUBGRAPH_INPUT = -10
_ANY_TYPE = "*"
_ABSENT = object()

Json = dict[str, Any]


@dataclass(frozen=True)
class _Link:
    origin: int
    origin_slot: int
    target: int
    target_slot: int


@dataclass(frozen=True)
class _Scope:
    """One graph: the workflow itself, or a subgraph where one of its instances stands.

    Attributes:
        prefix: before the ids of its nodes, as "103:".
        host: the instance, in the scope around it.
    """

    graph: Json
    prefix: str = ""
    around: _Scope | None = None
    host: Json = field(default_factory=dict)

    @property
    def nodes(self) -> dict[int, Json]:
        """By their ids, which are numbers but for some that old versions saved as text."""
        return {int(node["id"]): node for node in self.graph["nodes"]}

    @property
    def links(self) -> dict[int, _Link]:
        """By their ids: lists in a workflow, objects in a subgraph."""
        made = {}
        for one in self.graph.get("links") or ():
            if isinstance(one, dict):
                parts = [one[key] for key in ("origin_id", "origin_slot", "target_id")]
                made[one["id"]] = _Link(*map(int, parts), int(one["target_slot"]))
            elif one:
                made[one[0]] = _Link(*map(int, one[1:5]))
        return made


def as_prompt(workflow: Json) -> Json:
    """The prompt, in the form of the API, that the page sends for a workflow."""
    subgraphs = {one["id"]: one for one in workflow.get("definitions", {}).get("subgraphs", [])}
    return _Page(subgraphs).prompt(_Scope(workflow))


@dataclass
class _Page:
    subgraphs: Mapping[str, Json]

    def prompt(self, scope: _Scope) -> Json:
        made = dict(self._nodes(scope))
        for node in made.values():
            inputs = node["inputs"]
            for name in [n for n, value in inputs.items() if _leads_nowhere(value, made)]:
                del inputs[name]
        return made

    def _nodes(self, scope: _Scope) -> Iterator[tuple[str, Json]]:
        for number, node in scope.nodes.items():
            if node.get("mode") in (_MUTED, _BYPASSED) or node["type"] in _IN_THE_PAGE:
                continue
            if node["type"] in self.subgraphs:
                yield from self._nodes(self._inside(scope, node))
                continue
            yield (
                f"{scope.prefix}{number}",
                {
                    "class_type": node["type"],
                    "inputs": self._inputs(scope, node),
                    "_meta": {"title": node.get("title", node["type"])},
                },
            )

    def _inside(self, scope: _Scope, node: Json) -> _Scope:
        return _Scope(self.subgraphs[node["type"]], f"{scope.prefix}{node['id']}:", scope, node)

    def _inputs(self, scope: _Scope, node: Json) -> Json:
        made = {name: _as_sent(value) for name, value in widget_values(node).items()}
        for one in node.get("inputs") or ():
            if one.get("link") is None:
                continue
            value = self._behind(scope, one["link"])
            if value is not _ABSENT:
                made[one["name"]] = value
        return made

    def _behind(self, scope: _Scope, link: int) -> Any:
        """What a link brings: `[node, slot]`, or the value of a widget of the page."""
        known = scope.links.get(link)
        if known is None:
            return _ABSENT
        if known.origin == _SUBGRAPH_INPUT:
            return self._from_outside(scope, known.origin_slot)
        return self._made_by(scope, known.origin, known.origin_slot)

    def _from_outside(self, scope: _Scope, slot: int) -> Any:
        if scope.around is None:
            return _ABSENT
        name = scope.graph["inputs"][slot]["name"]
        given = [one for one in scope.host.get("inputs") or () if one["name"] == name]
        if given and given[0].get("link") is not None:
            return self._behind(scope.around, given[0]["link"])
        return _as_sent(self._widgets_of(scope).get(name, _ABSENT))

    def _widgets_of(self, scope: _Scope) -> Json:
        """The values that an instance holds, for the inputs of the subgraph that are widgets."""
        if "proxyWidgets" in scope.host.get("properties", {}):
            return {}  # of an older page, which kept the values inside
        names = [
            one["name"] for one in scope.graph.get("inputs") or () if self._is_widget(scope, one)
        ]
        values = scope.host.get("widgets_values") or []
        return {
            name: value for name, value in zip(names, values, strict=False) if value is not None
        }

    def _is_widget(self, scope: _Scope, given: Json) -> bool:
        for number in given.get("linkIds") or ():
            link = scope.links.get(number)
            node = scope.nodes.get(link.target) if link else None
            inputs = (node or {}).get("inputs") or []
            if link and link.target_slot < len(inputs) and inputs[link.target_slot].get("widget"):
                return True
        return False

    def _made_by(self, scope: _Scope, number: int, slot: int) -> Any:
        node = scope.nodes.get(number)
        if node is None or node.get("mode") == _MUTED:
            return _ABSENT
        if node["type"] == "Reroute" or node.get("mode") == _BYPASSED:
            return self._through(scope, node, slot)
        if node["type"] == "PrimitiveNode":
            return _as_sent((node.get("widgets_values") or [_ABSENT])[0])
        if node["type"] in self.subgraphs:
            inner = self._inside(scope, node)
            leading = inner.graph["outputs"][slot].get("linkIds") or [None]
            return _ABSENT if leading[0] is None else self._behind(inner, leading[0])
        return [f"{scope.prefix}{number}", slot]

    def _through(self, scope: _Scope, node: Json, slot: int) -> Any:
        """What a node that does nothing hands on."""
        inputs = node.get("inputs") or []
        outputs = node.get("outputs") or []
        kind = outputs[slot].get("type", _ANY_TYPE) if slot < len(outputs) else _ANY_TYPE
        if node["type"] == "Reroute":
            kind = _ANY_TYPE
        for one in (*inputs[slot : slot + 1], *inputs):
            if one.get("link") is not None and kind in (one.get("type"), _ANY_TYPE):
                return self._behind(scope, one["link"])
        return _ABSENT


def widget_values(node: Json) -> Json:
    """The values of a node's widgets by their names."""
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return values
    names = names_of_widgets().get(node["type"])
    if names is None:
        names = [one["widget"]["name"] for one in node.get("inputs") or () if one.get("widget")]
    given = _without_seeds(values or [])
    known = [*names, *(f"widget_{number}" for number in range(len(names), len(given)))]
    return {name: value for name, value in zip(known, given, strict=False) if value is not None}


@cache
def names_of_widgets() -> Mapping[str, Sequence[str]]:
    """The widgets of each class, in their order."""
    return json.loads(_WIDGETS.read_text())  # type: ignore[no-any-return]


def _without_seeds(values: Sequence[Any]) -> list[Any]:
    """Without what the page does to a seed after each run, which it does not send."""
    return [
        value
        for number, value in enumerate(values)
        if not (
            number
            and isinstance(value, str)
            and value in _AFTER_A_SEED
            and isinstance(values[number - 1], int)
            and not isinstance(values[number - 1], bool)
        )
    ]


def _as_sent(value: Any) -> Any:
    """Lists are wrapped, so that they are not taken for links."""
    return {"__value__": value} if isinstance(value, list) else value


def _leads_nowhere(value: Any, nodes: Json) -> bool:
    return isinstance(value, list) and value[0] not in nodes
