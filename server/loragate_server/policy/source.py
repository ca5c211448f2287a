"""Reads YAML into plain values and remembers the line and column of every one of them.

Stricter than YAML: duplicate keys, anchors with aliases and language-specific tags are refused, so
that what a person reads in the file is what the policy says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_FILE_BYTES = 1 << 20
MAX_DEPTH = 20
_SCALAR_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")
)

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Position:
    """A place in a file, counted from 1."""

    line: int = 1
    column: int = 1


class SourceError(Exception):
    """The text is not the YAML that we accept."""

    def __init__(self, position: Position, location: Location, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.position = position
        self.location = location
        self.problem = problem
        self.remedy = remedy


class Source:
    """The values of a YAML text, and where they stand.

    Attributes:
        value: mappings, lists and scalars; None for an empty text.
        values: location of a value, such as ("rules", 0, "name"), to its position.
        keys: location of a mapping entry to the position of its key.
    """

    def __init__(self, data: bytes) -> None:
        self.values: dict[Location, Position] = {}
        self.keys: dict[Location, Position] = {}
        self._seen: set[int] = set()
        self._yaml = YAML(typ="safe", pure=True)
        root = self._compose(data)
        self.value: Any = None if root is None else self._convert(root, ())

    def position(self, location: Location, *, key: bool = False) -> Position:
        """Where a value (or its key) stands; of the nearest enclosing one if it is absent."""
        if key and location in self.keys:
            return self.keys[location]
        while location and location not in self.values:
            location = location[:-1]
        return self.values.get(location, Position())

    def _compose(self, data: bytes) -> Node | None:
        if len(data) > MAX_FILE_BYTES:
            raise SourceError(
                Position(),
                (),
                f"the file has {len(data)} bytes, more than {MAX_FILE_BYTES}",
                "Shorten it.",
            )
        try:
            node: Node | None = self._yaml.compose(data.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise SourceError(
                Position(data.count(b"\n", 0, error.start) + 1), (), "not UTF-8", "Save as UTF-8."
            ) from error
        except MarkedYAMLError as error:
            problem = str(error.problem or error.context or "not YAML")
            position = _position(error.problem_mark) if error.problem_mark else Position()
            raise SourceError(position, (), problem, "Correct the YAML.") from error
        except (YAMLError, ValueError, RecursionError) as error:
            problem = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SourceError(Position(), (), problem, "Correct the YAML.") from error
        return node

    def _convert(self, node: Node, location: Location) -> Any:
        position = _position(node.start_mark)
        self.values[location] = position
        # The composer hands out the same node again for an alias.
        if id(node) in self._seen:
            raise SourceError(position, location, "is an alias (*name)", "Write the value out.")
        self._seen.add(id(node))
        if len(location) > MAX_DEPTH:
            raise SourceError(position, location, "is nested too deeply", "Correct the YAML.")
        if isinstance(node, MappingNode):
            return self._convert_mapping(node, location)
        if isinstance(node, SequenceNode):
            return [self._convert(item, (*location, i)) for i, item in enumerate(node.value)]
        return self._convert_scalar(node, location)

    def _convert_mapping(self, node: MappingNode, location: Location) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            position = _position(key_node.start_mark)
            if not isinstance(key_node, ScalarNode):
                raise SourceError(position, location, "a key is not text", "Use a plain key.")
            key = str(key_node.value)
            if key in result:
                first = self.keys[(*location, key)]
                raise SourceError(
                    position,
                    (*location, key),
                    f"appears twice, first in line {first.line}",
                    "Keep one of them.",
                )
            self.keys[(*location, key)] = position
            result[key] = self._convert(value_node, (*location, key))
        return result

    def _convert_scalar(self, node: Node, location: Location) -> Any:
        position = _position(node.start_mark)
        if str(node.tag) not in _SCALAR_TAGS:
            raise SourceError(position, location, f"has the tag {node.tag}", "Remove the tag.")
        try:
            return self._yaml.constructor.construct_object(node)
        except (YAMLError, ValueError, OverflowError) as error:
            problem = f"cannot be read: {str(error).splitlines()[0]}"
            raise SourceError(position, location, problem, "Correct the value.") from error


def _position(mark: Any) -> Position:
    return Position(int(mark.line) + 1, int(mark.column) + 1)
