"""What comes to a node of ComfyUI by links, where LoRAs are chosen or made while the graph runs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from loragate_server.intercept.reading.lora_words import begins_last_word, speaks_of_lora
from loragate_server.intercept.refusals import Location, place_of, unnamed, unreadable
from loragate_server.intercept.servers.comfyui_graph import CONSTANTS, Node, is_link
from loragate_server.intercept.servers.comfyui_tags import is_lora_class

_MOST_HOPS = 16
_MOST_CHARS = 1_000_000
_MOST_CHARS_OF_ALL = 16_000_000
_TAG = re.compile(r"<(?:lora|lyco):")
_STACK = re.compile(r"stack", re.IGNORECASE)
_HANDS_ON = re.compile(r"reroute|switch|primitive", re.IGNORECASE)
_MADE = re.compile(r"train|extract(?!or)", re.IGNORECASE)
_WRITES = re.compile(r"convert|resize|merge|quantize", re.IGNORECASE)
_KEPT = re.compile(r"save|plot|loss|graph|preview|info|show|export", re.IGNORECASE)
_BY_NUMBER = re.compile(
    r"(.*_)?(index|idx|seed|number|position|offset|which|nth|page)(_?\d+)?", re.IGNORECASE
)
_CONFIG = re.compile(r"(cycler|randomizer)_config")
_INDEX = re.compile(r"(lora_?)?(index|idx)", re.IGNORECASE)
_ELSEWHERE = re.compile(r"(lora_?)?(sub_?)?(folder|directory)(_?path)?", re.IGNORECASE)
_CHOOSER = re.compile(
    r"cycl|random|shuffle|by.?index|by.?number|sequential|iterat|roulette", re.IGNORECASE
)
_REMEDY = "Write the name of the LoRA into the node."


def place_in(node: Node, name: str) -> str:
    """Node, class and input, for people."""
    return f"{place_of(node.key, 'inputs', name)} ({place_of(node.class_type).removeprefix('/')})"


class Links:
    """What comes by the links of one graph, each thing found out once.

    However a graph links its nodes, what it costs to follow them grows with the graph alone: what
    is put together is bounded, and what many nodes take from one is not made anew for each.
    """

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._texts: dict[tuple[str, bool, int], str | None] = {}
        self._loras: dict[tuple[str, int], bool] = {}
        self._names: dict[str, bool] = {}
        self._chars = 0

    def text(self, link: Any) -> str | None:
        """The text that a link leads to, put together as ComfyUI's own nodes do; None if unknown.

        Raises:
            RefusedRequestError: BODY_UNREADABLE where links make more text than anybody sends.
        """
        return self.taken(self._text(link, 0))

    def taken(self, text: str | None) -> str | None:
        """A text that comes by a link, counted.

        Raises:
            RefusedRequestError: BODY_UNREADABLE where all together are too long.
        """
        self._chars += len(text or "")
        if self._chars > _MOST_CHARS_OF_ALL:
            raise unreadable(
                f"Links carry more than {_MOST_CHARS_OF_ALL} characters of text to nodes.",
                "Write the texts into the nodes, or send a smaller graph.",
            )
        return text

    def comes_from_loras(self, link: Any, hops: int = 0) -> bool:
        """Whether all that a link leads to is nodes of LoRAs."""
        node = self._nodes.get(link[0]) if is_link(link) else None
        if node is None or hops > _MOST_HOPS:
            return False
        if (node.key, hops) not in self._loras:
            self._loras[node.key, hops] = self._hands_on_loras(node, hops)
        return self._loras[node.key, hops]

    def names_loras(self, node: Node) -> bool:
        """Whether a node of LoRAs says by its own inputs which LoRA it hands on."""
        if node.key not in self._names:
            self._names[node.key] = is_lora_class(node.class_type) and any(
                speaks_of_lora(name) and not isinstance(value, int | float)
                for name, value in node.inputs.items()
            )
        return self._names[node.key]

    def _hands_on_loras(self, node: Node, hops: int) -> bool:
        if is_lora_class(node.class_type):
            return True
        links = [value for value in node.inputs.values() if is_link(value)]
        return bool(
            links
            and _HANDS_ON.search(node.class_type)
            and all(self.comes_from_loras(one, hops + 1) for one in links)
        )

    def _text(self, link: Any, hops: int) -> str | None:
        if not is_link(link):
            return link if isinstance(link, str) else None
        node = self._nodes.get(link[0])
        if node is None or hops > _MOST_HOPS:
            return None
        key = node.key, link[1] == 1, hops
        if key not in self._texts:
            self._texts[key] = self._made(node, hops, second=link[1] == 1)
        return self._texts[key]

    def _made(self, node: Node, hops: int, *, second: bool) -> str | None:
        """What a node makes, by its second output or another one."""
        if node.class_type in CONSTANTS and len(node.inputs) == 1:
            return self._text(next(iter(node.inputs.values())), hops + 1)

        def given(name: str) -> str | None:
            return self._text(node.inputs.get(name, ""), hops + 1)

        made = None
        if node.class_type.startswith("LoraTextExtractor-") and (text := given("text")) is not None:
            tags, rest = _tags_and_rest(text)
            made = "\n".join(tags) if second else rest
        if node.class_type == "StringConcatenate":
            made = _joined(given("string_a"), given("string_b"), given("delimiter"))
        if node.class_type == "StringReplace":
            made = _replaced(given("string"), given("find"), given("replace"))
        return self.taken(made)


def constant_at(link: Any, nodes: Mapping[str, Node]) -> Location | None:
    """Where the one text stands, below the graph, that a link hands on as it is."""
    for _ in range(_MOST_HOPS):
        node = nodes.get(link[0])
        if node is None or node.class_type not in CONSTANTS or len(node.inputs) != 1:
            return None
        name, value = next(iter(node.inputs.items()))
        if isinstance(value, str):
            return node.at(name)
        if not is_link(value):
            return None
        link = value
    return None


def refuse_made_or_chosen(
    name: str, link: Any, node: Node, nodes: Mapping[str, Node], links: Links
) -> None:
    """Refuses a link by which a LoRA comes in that no name in the request stands for.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED.
    """
    source = nodes.get(link[0])
    if source is None:
        return
    takes_loras = speaks_of_lora(name) or is_lora_class(node.class_type)
    if not takes_loras or _KEPT.search(node.class_type):
        return
    if is_lora_class(source.class_type) and _MADE.search(source.class_type):
        raise unnamed(
            place_in(node, name),
            f"takes a LoRA that {_named(source)} makes while the graph runs.",
            "Save it, have it audited, and load it by its name.",
        )
    if _STACK.search(name) and not links.comes_from_loras(link):
        raise unnamed(
            place_in(node, name), f"takes LoRAs from {_named(source)}, which is not known.", _REMEDY
        )


def refuse_choice_by_number(node: Node, *, found: bool) -> None:
    """Refuses a node that chooses a LoRA itself: by a number, by chance, or one after the other.

    Args:
        node: of the graph.
        found: whether it names any that it loads.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED.
    """
    if not is_lora_class(node.class_type):
        return
    named = found or any(
        isinstance(value, str | dict | list) and not is_link(value) and speaks_of_lora(name)
        for name, value in node.inputs.items()
    )
    for name, value in node.inputs.items():
        config = isinstance(value, dict) and _CONFIG.fullmatch(name)
        if config and value.get("roll_mode") != "fixed":
            raise unnamed(place_in(node, name), "chooses a LoRA by itself.", _REMEDY)
        # Beside an index, a name may be there for people only.
        if _INDEX.fullmatch(name) or (not named and _counts(name)):
            raise unnamed(place_in(node, name), "chooses a LoRA by a number.", _REMEDY)
        if _ELSEWHERE.fullmatch(name) and value and not _makes(node):
            raise unnamed(place_in(node, name), "says where names are looked for.", _REMEDY)
    if not named and _CHOOSER.search(node.class_type):
        raise unnamed(place_of(node.key, node.class_type), "chooses a LoRA by itself.", _REMEDY)


def refuse_inner_links(value: Any, names: tuple[str, ...], at: Location) -> None:
    """Nodes that take objects may follow links in them; then nobody knows the name.

    Raises:
        RefusedRequestError: ADAPTER_UNNAMED.
    """
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        inner = (*names, str(key))
        if is_link(item) and any(speaks_of_lora(name) for name in inner):
            raise unnamed(
                place_of(*at, key), "links a LoRA from inside an object.", "Write its name."
            )
        if isinstance(item, dict | list) and not is_link(item):
            refuse_inner_links(item, inner, (*at, key))


def _counts(name: str) -> bool:
    """Whether an input says by a number which one is meant."""
    return _BY_NUMBER.fullmatch(name) is not None or begins_last_word(name, "cycle")


def _makes(node: Node) -> bool:
    """Whether a node makes or keeps LoRAs, and loads none."""
    return any(one.search(node.class_type) for one in (_MADE, _WRITES, _KEPT))


def _named(node: Node) -> str:
    return f"node {place_of(node.key, node.class_type)}"


def _joined(first: str | None, second: str | None, delimiter: str | None) -> str | None:
    if first is None or second is None or delimiter is None:
        return None
    text = delimiter.join((first, second))
    return text if len(text) <= _MOST_CHARS else None


def _replaced(text: str | None, find: str | None, new: str | None) -> str | None:
    if text is None or find is None or new is None:
        return None
    made = text.count(find) * len(new) + len(text)
    return text.replace(find, new) if made <= _MOST_CHARS else None


def _tags_and_rest(text: str) -> tuple[list[str], str]:
    """The tags of a text as Coziness finds them, and the text without them."""
    tags, rest, at = [], [], 0
    for match in _TAG.finditer(text):
        if match.start() < at:
            continue
        end = text.find(">", match.end() + 1)
        if end < 0:
            break
        if text[match.end()] == ">":
            continue
        tags.append(text[match.start() : end + 1])
        rest.append(text[at : match.start()])
        at = end + 1
    return tags, "".join([*rest, text[at:]])
