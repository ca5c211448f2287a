"""JSON from strangers as messages of the API: what could be read in two ways is refused."""

from __future__ import annotations

import binascii
import re
from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from loragate_server import strict_json
from loragate_server.errors import ErrorReason, NoDecisionError

_MOMENT = Timestamp.DESCRIPTOR.full_name

MOST_DEPTH = 16
"""Of objects and lists in each other; no message of the API comes near."""

MOST_ITEMS = 2000
"""Of one list; twice what any may have. A million empty ones would fit into a body."""

MOST_PARTS = 50_000
"""Of one text, counted by what stands between them before it is read: a value takes many times the
memory of its two letters."""

_URL_SAFE = str.maketrans("-_", "+/")
_WHOLE = re.compile(r"-?[0-9]{1,20}", re.ASCII)
_FRACTIONS = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT})
_LONG = frozenset({FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64})
"""Types that JSON has no numbers for: they are written as a text, and may be."""

_Message = TypeVar("_Message", bound=Message)


def read_message(text: bytes, kind: type[_Message]) -> _Message:
    """The message that a JSON text says.

    Raises:
        NoDecisionError: REQUEST_INVALID; metadata entry "field" names what is wrong, where a name
            is to blame.
    """
    try:
        return make_message(_read(text), kind)
    except NoDecisionError as error:
        # Its frames hold what was read, and whoever waits in another thread holds it in a circle.
        error.__context__ = None
        raise error.with_traceback(None) from None


def make_message(value: Any, kind: type[_Message]) -> _Message:
    """The message that a value says: names of JSON or of the .proto files, none unknown.

    Raises:
        NoDecisionError: REQUEST_INVALID, likewise.
    """
    message = kind()
    _look(message.DESCRIPTOR, value, "")
    try:
        json_format.ParseDict(value, message)
    except (json_format.Error, ValueError, TypeError, OverflowError) as error:
        said = " ".join(str(error).split())
        raise invalid(f"The request does not fit {kind.__name__}: {said[:300]}") from None
    return message


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field holds a list."""
    found = getattr(field, "is_repeated", None)
    if found is None:  # before 6.31; what it offers instead is gone from 7
        return bool(getattr(field, "label", 0) == 3)
    return bool(found)


def invalid(message: str, field: str = "") -> NoDecisionError:
    """What somebody is told whose request cannot be read."""
    message, field = (_writable(one) for one in (message, field))
    return NoDecisionError(
        ErrorReason.REQUEST_INVALID,
        message,
        remedy="Send what /openapi.json describes.",
        metadata={"field": field} if field else None,
    )


def _writable(text: str) -> str:
    """The text with half surrogate pairs, which no message can hold, written as JSON has them."""
    return text.encode("utf-8", "backslashreplace").decode()


def _read(text: bytes) -> Any:
    if sum(map(text.count, (b",", b"[", b"{"))) > MOST_PARTS:
        raise invalid(f"The JSON has more than {MOST_PARTS} parts.")
    try:
        value = strict_json.read(text.decode(), exact=True)
    except strict_json.DoubledNameError as error:
        raise invalid(f"The name {error.name[:200]!r} stands twice.", error.name) from None
    except strict_json.NoNumberError as error:
        raise invalid(
            f"{error.text[:60]} is no number that every reader of JSON keeps as it is. Whole "
            "numbers beyond 2^53 are sent as a text."
        ) from None
    except RecursionError:
        raise invalid("The JSON is nested too deep.") from None
    except ValueError as error:
        raise invalid(f"The body is no JSON in UTF-8: {str(error)[:200]}.") from None
    if strict_json.nesting(value) > MOST_DEPTH:
        raise invalid(f"The JSON is nested deeper than {MOST_DEPTH}.")
    return value


def _look(kind: Any, value: Any, path: str) -> None:
    """Refuses what protobuf's reader would take for something near it."""
    if not isinstance(value, dict):
        raise invalid(f"{path or 'The request'} is no object but {_shown(value)}.", path)
    known = {field.name: field for field in kind.fields}
    known |= {field.json_name: field for field in kind.fields}
    seen: dict[str, str] = {}
    for name, inner in value.items():
        where = f"{path}.{name}" if path else name
        field = known.get(name)
        if field is None:
            raise invalid(f"There is no field {where[:200]!r} in {kind.name}.", where)
        choice = field.containing_oneof
        optional = choice is None or len(choice.fields) == 1
        taken = seen.setdefault(field.name if optional else choice.full_name, name)
        if taken != name:
            raise invalid(f"{where} and {taken} cannot both be set.", where)
        if not is_repeated(field):
            _look_at_one(field, inner, where)
        elif isinstance(inner, list):
            if len(inner) > MOST_ITEMS:
                raise invalid(f"{where} has {len(inner)} entries, over {MOST_ITEMS}.", where)
            for one in inner:
                _look_at_one(field, one, where)
        else:
            raise invalid(f"{where} is no list but {_shown(inner)}.", where)


def holds_message(field: FieldDescriptor) -> bool:
    """Whether a field holds an object in JSON: a moment is a message, and a text there."""
    return field.message_type is not None and field.message_type.full_name != _MOMENT


def _look_at_one(field: FieldDescriptor, value: Any, path: str) -> None:
    if (
        isinstance(value, str)
        and not value.isascii()
        and any("\ud800" <= letter <= "\udfff" for letter in value)
    ):
        raise invalid(f"{path} holds half a surrogate pair, which is no letter.", path)
    if field.message_type is not None and not holds_message(field):
        _look_at_moment(value, path)
    elif field.message_type is not None:
        _look(field.message_type, value, path)
    elif field.type == FieldDescriptor.TYPE_BYTES:
        if not isinstance(value, str) or not _is_base64(value):
            raise invalid(f"{path} is no base64.", path)
    elif field.type == FieldDescriptor.TYPE_BOOL:
        if not isinstance(value, bool):
            raise invalid(f"{path} is true or false, not {_shown(value)}.", path)
    elif not isinstance(value, str):
        _look_at_number(field, value, path)
    elif field.enum_type is not None:
        if value not in field.enum_type.values_by_name:
            raise invalid(f"There is no {field.enum_type.name} {_shown(value)}.", path)
    elif field.type != FieldDescriptor.TYPE_STRING and (
        field.type not in _LONG or not _WHOLE.fullmatch(value)
    ):
        raise invalid(f"{path} is no number but {_shown(value)}.", path)


def _look_at_moment(value: Any, path: str) -> None:
    try:
        Timestamp().FromJsonString(value)
    except (ValueError, TypeError, OverflowError):
        said = "is no moment such as 2026-11-29T14:00:00Z but"
        raise invalid(f"{path} {said} {_shown(value)}.", path) from None


def _look_at_number(field: FieldDescriptor, value: Any, path: str) -> None:
    if field.type == FieldDescriptor.TYPE_STRING or field.enum_type is not None:
        raise invalid(f"{path} is no text but {_shown(value)}.", path)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{path} is no number but {_shown(value)}.", path)
    if field.type not in _FRACTIONS and value != int(value):
        raise invalid(f"{path} is no whole number but {_shown(value)}.", path)


def _is_base64(text: str) -> bool:
    """Whether it is, in either alphabet and with or without padding; protobuf skips what is not."""
    padded = text.translate(_URL_SAFE) + "=" * (-len(text) % 4)
    try:
        binascii.a2b_base64(padded, strict_mode=True)
    except ValueError:
        return False
    return True


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else repr(value)[:60]
