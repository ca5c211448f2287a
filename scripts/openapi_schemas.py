"""JSON Schemas of the messages of proto/, as protobuf's JSON writes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from loragate_server.rest.door import SOURCES
from loragate_server.rest.strict import holds_message, is_repeated

_Field = FieldDescriptor
_PLAIN: dict[int, dict[str, Any]] = {
    _Field.TYPE_STRING: {"type": "string"},
    _Field.TYPE_BOOL: {"type": "boolean"},
    _Field.TYPE_DOUBLE: {"type": "number", "minimum": -(2**53), "maximum": 2**53},
    _Field.TYPE_INT32: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    _Field.TYPE_UINT64: {"type": "string", "pattern": "^[0-9]{1,19}$"},
    _Field.TYPE_BYTES: {
        "type": "string",
        "contentEncoding": "base64",
        "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    },
}
_WELL_KNOWN: dict[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
}


class Schemas:
    """Collects what is referred to.

    Args:
        said: descriptions by full name.

    Attributes:
        messages: schemas of messages and enums by name.
    """

    def __init__(self, said: dict[str, str]) -> None:
        self._said = said
        self.messages: dict[str, Any] = {}

    def ref(self, message: Any) -> dict[str, Any]:
        """A reference to a message, which is described too."""
        if message.full_name in _WELL_KNOWN:
            return _WELL_KNOWN[message.full_name]
        if message.name not in self.messages:
            self.messages[message.name] = {}  # so that one that holds itself would end
            self.messages[message.name] = self._message(message)
        return {"$ref": f"#/components/schemas/{message.name}"}

    def flat(self, message: Any, outer: str = "") -> Iterator[tuple[str, dict[str, Any], str]]:
        """Fields as parameters of a query: name, schema and description."""
        for field in message.fields:
            name = f"{outer}{field.name}"
            if outer and field.name in SOURCES:
                continue  # the body is the file
            if holds_message(field):
                yield from self.flat(field.message_type, f"{name}.")
            else:
                yield name, self._shape(field), self._said[field.full_name]

    def _message(self, message: Any) -> dict[str, Any]:
        found: dict[str, Any] = {
            "type": "object",
            "description": self._said[message.full_name],
            "properties": {one.name: self._property(one) for one in message.fields},
            "additionalProperties": False,
        }
        choices = [one for one in message.oneofs if len(one.fields) > 1]
        if choices:
            found["allOf"] = [_at_most_one([one.name for one in each.fields]) for each in choices]
        return found

    def _property(self, field: Any) -> dict[str, Any]:
        return {**self._shape(field), "description": self._said[field.full_name]}

    def _shape(self, field: Any) -> dict[str, Any]:
        if field.message_type is not None:
            one = self.ref(field.message_type)
        elif field.enum_type is not None:
            one = self._enum(field.enum_type)
        else:
            one = _PLAIN[field.type]
        return {"type": "array", "items": one} if is_repeated(field) else dict(one)

    def _enum(self, enum: Any) -> dict[str, Any]:
        lines = [f"{one.name}: {self._said[f'{enum.full_name}.{one.name}']}" for one in enum.values]
        self.messages[enum.name] = {
            "type": "string",
            "enum": [one.name for one in enum.values],
            "description": "\n".join([self._said[enum.full_name], *lines]),
        }
        return {"$ref": f"#/components/schemas/{enum.name}"}


def _at_most_one(names: list[str]) -> dict[str, Any]:
    """None of them, or one alone."""
    return {
        "oneOf": [
            *({"required": [name]} for name in names),
            {"not": {"anyOf": [{"required": [name]} for name in names]}},
        ]
    }
