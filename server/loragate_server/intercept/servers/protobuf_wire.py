"""Protobuf on the wire, field by field, for messages that are read without their class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from loragate_server.intercept.refusals import unreadable

VARINT, FIXED64, BYTES = 0, 1, 2
"""Kinds of fields on the wire."""
_FIXED32 = 5
_SIZES = {FIXED64: 8, _FIXED32: 4}
_REMEDY = "Send one message as its definition has it."


@dataclass(frozen=True)
class Part:
    """One field of a message.

    Attributes:
        number: of the field.
        kind: how it stands on the wire. A parser takes a field of another kind than its definition
            has for one that it does not know.
        value: a number as it stands on the wire, without sign; or the bytes of anything longer.
        raw: the whole field, its tag included.
    """

    number: int
    kind: int
    value: int | bytes
    raw: bytes

    @property
    def data(self) -> bytes:
        """The bytes of a text or a message.

        Raises:
            RefusedRequestError: BODY_UNREADABLE; it is a number.
        """
        if not isinstance(self.value, bytes):
            raise unreadable("A field of the message is a number.", _REMEDY)
        return self.value


def parts(data: bytes) -> Iterator[Part]:
    """The fields of a message, in order.

    Raises:
        RefusedRequestError: BODY_UNREADABLE; it is cut off, or no message.
    """
    at = 0
    while at < len(data):
        begin = at
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == VARINT:
            value, at = _varint(data, at)
        else:
            size, at = _varint(data, at) if kind == BYTES else (_SIZES.get(kind, -1), at)
            if number == 0 or size < 0 or at + size > len(data):
                raise unreadable("The message is cut off, or none.", _REMEDY)
            held = data[at : at + size]
            value = held if kind == BYTES else int.from_bytes(held, "little")
            at += size
        yield Part(number, kind, value, data[begin:at])


def chunk(number: int, data: bytes) -> bytes:
    """A field of bytes: a text, or a message."""
    return _written(number << 3 | BYTES) + _written(len(data)) + data


def _written(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        number |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            return number, at + 1
        at += 1
    raise unreadable("The message is cut off, or none.", _REMEDY)
