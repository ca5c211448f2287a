"""Form bodies: urlencoded and multipart, each field once, and where its value stands."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from loragate_server.intercept.reading.bodies import (
    FORM,
    MULTIPART,
    BodyLimits,
    content_coding,
    media_type,
    plain_bytes,
)
from loragate_server.intercept.refusals import ambiguous_body, unreadable
from loragate_server.intercept.request import HttpRequest

# A malformed form is the sender's fault and becomes a refusal; it is no warning of this process.
logging.getLogger("python_multipart").setLevel(logging.ERROR)

_EXTENDED_NAME = re.compile(rb";\s*name\*", re.IGNORECASE)
_MAX_FIELDS = 1000
_MAX_HEAD_BYTES = 16 * 1024
"""Of the headers of one part."""
_MAX_BOUNDARY_CHARS = 70
"""As RFC 2046 has it."""
_FED_BYTES = 64 * 1024
_REMEDY = "Send every field once, as the server's documentation shows it."


@dataclass(frozen=True)
class Field:
    """One field of a form.

    Attributes:
        data: the value as bytes, for an uploaded file its content.
        file_name: as the sender named an uploaded file; None for a plain field.
        span: where `data` stands in a multipart body; None in an urlencoded one.
    """

    name: str
    data: bytes = field(repr=False)
    file_name: str | None = None
    span: tuple[int, int] | None = None

    @property
    def text(self) -> str:
        """The value as text.

        Raises:
            RefusedRequestError: BODY_UNREADABLE when it is not UTF-8.
        """
        try:
            return self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise unreadable("A form field is not in UTF-8.", "Send UTF-8.") from error


def is_form(request: HttpRequest) -> bool:
    """Whether the content type says that the body is a form."""
    return media_type(request)[0] in (FORM, MULTIPART)


def read_form(
    request: HttpRequest, limits: BodyLimits, repeatable: Collection[str] = ()
) -> tuple[Field, ...]:
    """The fields of a form.

    Args:
        request: its content type says which kind of form it is.
        limits: how much is read.
        repeatable: plain fields that may come several times; uploaded files always may.

    Raises:
        RefusedRequestError: BODY_INCOMPLETE, BODY_AMBIGUOUS or BODY_UNREADABLE.
    """
    kind, options = media_type(request)
    if content_coding(request) != "identity":
        # Servers that ignore the coding would find other fields in the packed bytes.
        raise ambiguous_body("The form is compressed.", "Send forms without Content-Encoding.")
    data = plain_bytes(request, limits)
    fields = (
        _multipart(data, options.get("boundary", "")) if kind == MULTIPART else _urlencoded(data)
    )
    plain = [one.name for one in fields if one.file_name is None and one.name not in repeatable]
    if len(set(plain)) != len(plain):
        raise ambiguous_body("The form has the same field twice.", _REMEDY)
    return fields


def _urlencoded(data: bytes) -> tuple[Field, ...]:
    if data.lstrip()[:1] in (b"{", b"[", b'"'):
        raise ambiguous_body("The form looks like JSON.", "Send the Content-Type of the body.")
    if b";" in data:
        # python-multipart before 0.0.29 and others end a field there.
        raise ambiguous_body("The form holds a plain semicolon.", "Write it as %3B.")
    try:
        pairs = parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as error:
        raise unreadable("The form cannot be read.", _REMEDY) from error
    return tuple(Field(name, value.encode()) for name, value in pairs)


def _multipart(data: bytes, boundary: str) -> tuple[Field, ...]:
    if not boundary or not boundary.isascii() or len(boundary) > _MAX_BOUNDARY_CHARS:
        raise ambiguous_body("The multipart form has no boundary, or no plain one.", _REMEDY)
    parts = _Parts()
    try:
        parser = MultipartParser(
            boundary.encode(),
            {
                "on_part_begin": parts.on_part_begin,
                "on_part_data": parts.on_part_data,
                "on_header_field": parts.on_header_field,
                "on_header_value": parts.on_header_value,
                "on_header_end": parts.on_header_end,
                "on_end": parts.on_end,
            },
        )
        # Bit by bit, so that a form that is refused is not read to its end.
        for at in range(0, len(data), _FED_BYTES):
            parser.write(data[at : at + _FED_BYTES])
        parser.finalize()
    except FormParserError as error:
        raise unreadable("The multipart form cannot be read.", _REMEDY) from error
    if not parts.ended:
        raise unreadable("The multipart form is cut off.", _REMEDY)
    spans = _spans(data, boundary.encode())
    if [data[begin:end] for begin, end in spans] != [bytes(part.data) for part in parts.done]:
        raise ambiguous_body("The multipart form can be read in two ways.", _REMEDY)
    return tuple(_field(part, span) for part, span in zip(parts.done, spans, strict=True))


@dataclass
class _Part:
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    data: bytearray = field(default_factory=bytearray)


class _Parts:
    """Collects what the parser calls back."""

    def __init__(self) -> None:
        self.done: list[_Part] = []
        self.ended = False
        self._name = bytearray()
        self._value = bytearray()
        self._head_bytes = 0

    def on_part_begin(self) -> None:
        if len(self.done) >= _MAX_FIELDS:
            raise unreadable("The multipart form has too many parts.", _REMEDY)
        self._head_bytes = 0
        self.done.append(_Part())

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.done[-1].data += data[start:end]

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._in_head(end - start)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._in_head(end - start)

    def on_header_end(self) -> None:
        self.done[-1].headers.append((bytes(self._name).lower(), bytes(self._value)))
        self._name.clear()
        self._value.clear()

    def on_end(self) -> None:
        self.ended = True

    def _in_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise unreadable("A part of the form has too long a head.", _REMEDY)


def _spans(data: bytes, boundary: bytes) -> list[tuple[int, int]]:
    """Where the contents of the parts stand, found a second time by the delimiters alone."""
    delimiter = b"\r\n--" + boundary
    spans = []
    position = data.find(b"--" + boundary)
    while position >= 0:
        begin = data.find(b"\r\n\r\n", position)
        end = data.find(delimiter, begin + 2) if begin >= 0 else -1
        if end < 0:
            break
        spans.append((begin + 4, max(begin + 4, end)))
        position = end + 2
    return spans


def _field(part: _Part, span: tuple[int, int]) -> Field:
    headers = dict(part.headers)
    if len(headers) != len(part.headers):
        raise ambiguous_body("A part of the form has the same header twice.", _REMEDY)
    coding = headers.get(b"content-transfer-encoding", b"binary").strip().lower()
    if coding not in (b"binary", b"8bit", b"7bit") or b"content-encoding" in headers:
        raise ambiguous_body("A part of the form is encoded.", "Send the parts as they are.")
    disposition = headers.get(b"content-disposition")
    if disposition is not None and _EXTENDED_NAME.search(disposition):
        # Go and others take the name that is written so, whatever the plain one says.
        raise ambiguous_body("A part of the form has a name in an extended form.", _REMEDY)
    kind, options = parse_options_header(disposition)
    _, type_options = parse_options_header(headers.get(b"content-type"))
    charset = type_options.get(b"charset", b"utf-8").strip().lower()
    if kind != b"form-data" or b"name" not in options or charset not in (b"utf-8", b"us-ascii"):
        raise ambiguous_body("A part of the form is not plain form data in UTF-8.", _REMEDY)
    try:
        name = options[b"name"].decode("utf-8")
        raw_file_name = options.get(b"filename")
        file_name = None if raw_file_name is None else raw_file_name.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable("A form field's name is not in UTF-8.", _REMEDY) from error
    return Field(name, bytes(part.data), file_name, span)
