"""What stands in an address, as the value of a message: `caller.service=x&dry_run=true`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from loragate_server import strict_json
from loragate_server.rest.strict import holds_message, invalid, is_repeated

_TRUTH = {"true": True, "false": False}
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_NUMBERS = frozenset({FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_DOUBLE})


def require_decodable(raw_target: str) -> None:
    """Refuses an address with escapes that are no UTF-8, which would be read as they stand.

    Args:
        raw_target: path and query as they came.

    Raises:
        NoDecisionError: REQUEST_INVALID.
    """
    path, _, query = raw_target.partition("?")
    for part, text in (("path", path), ("query", query)):
        try:
            unquote_to_bytes(text).decode()
        except UnicodeError:  # the address may hold raw bytes, too
            raise _undecodable(part, "holds percent escapes that are no UTF-8") from None
        if found := _NO_ESCAPE.search(text):
            said = f"holds {text[found.start() :][:3]!r}, which is no percent escape"
            raise _undecodable(part, said)


def _undecodable(part: str, said: str) -> Exception:
    return invalid(f"The {part} of the address {said}.", part)


def from_query(
    kind: Descriptor, parameters: Iterable[tuple[str, str]], path: Mapping[str, str]
) -> dict[str, Any]:
    """The fields that an address names; those of inner messages have a point in their name.

    Args:
        kind: of the message.
        parameters: of the query, in their order.
        path: parts of the path that are fields.

    Raises:
        NoDecisionError: REQUEST_INVALID for a name that is no field, or stands there twice.
    """
    value: dict[str, Any] = dict(path)
    for name, text in parameters:
        if name in path:
            raise invalid(f"{name!r} stands in the path already.", name)
        _put(kind, value, name, text)
    return value


def _put(kind: Descriptor, value: dict[str, Any], name: str, text: str) -> None:
    *outer, last = name.split(".")
    for part in outer:
        field = kind.fields_by_name.get(part)
        inner = None if field is None or not holds_message(field) else field.message_type
        if field is None or inner is None or is_repeated(field):
            raise _unknown(name)
        kind, value = inner, value.setdefault(part, {})
    field = kind.fields_by_name.get(last)
    if field is None or holds_message(field):
        raise _unknown(name)
    read = _value(field, name, text)
    if is_repeated(field):
        value.setdefault(last, []).append(read)
    elif last in value:
        raise invalid(f"The parameter {name!r} stands twice.", name)
    else:
        value[last] = read


def _value(field: FieldDescriptor, name: str, text: str) -> Any:
    """The text as JSON would hold it."""
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _TRUTH.get(text, text)
    if field.type not in _NUMBERS:
        return text
    try:
        return strict_json.read(text, exact=True)
    except (ValueError, RecursionError):
        raise invalid(f"{name} is no number but {text[:60]!r}.", name) from None


def _unknown(name: str) -> Exception:
    return invalid(f"There is no parameter {name[:200]!r}.", name)
