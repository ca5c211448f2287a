"""Reads the bodies of requests: JSON, and forms of both kinds, as one object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from loragate.integrations._asgi.values import (
    FormText,
    InvalidBodyError,
    Upload,
    without_constants,
    without_doubles,
)

_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_MOST_FIELDS = 1000
_ENCODED = re.compile(rb"content-transfer-encoding:(?!\s*(?:binary|8bit|7bit)\b)", re.IGNORECASE)
_CHARSET = re.compile(r';\s*charset="?(?:utf-?8|us-ascii|ascii)"?\s*(?=;|$)', re.IGNORECASE)
_STEP = re.compile(r"[^.\[\]]+")


def parse(body: bytes) -> Any:
    """Reads JSON strictly: an ambiguity here would be one LoRA audited and another loaded.

    Raises:
        InvalidBodyError: not UTF-8, not JSON, a key occurs twice, or numbers that JSON lacks.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=without_doubles,
            parse_constant=without_constants,
        )
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidBodyError(f"The body is not sound JSON: {error}.") from error


def read(body: bytes, headers: Mapping[str, str]) -> Any:
    """The body as JSON, or the fields of a form as an object; None for an empty body.

    Raises:
        InvalidBodyError: it is neither, or could be read in two ways.
    """
    if not body:
        return None
    content_type = headers.get("content-type", "")
    if content_type.lower().count("charset") != len(_CHARSET.findall(content_type)):
        # Starlette reads the names and values of a multipart form by it, as "+AGw-ora" in UTF-7.
        raise InvalidBodyError("The body is not in UTF-8. Send UTF-8, and say no other charset.")
    kind = content_type.partition(";")[0].strip().lower()
    if kind == _MULTIPART:
        return nested(_multipart(body, content_type))
    if kind == _FORM:
        if body.lstrip()[:1] in (b"{", b"["):
            raise InvalidBodyError("The form looks like JSON. Send the content-type of the body.")
        if not body.isascii():
            raise InvalidBodyError("The form is not ASCII. Encode what is not by percent signs.")
        if b";" in body:
            # python-multipart before 0.0.29, which Starlette uses, ends a field there.
            raise InvalidBodyError("The form holds a plain semicolon. Write it as %3B.")
        return nested(_pairs(body.decode("ascii")))
    return parse(body)


def read_query(query: str) -> Any:
    """What stands behind the question mark, as an object.

    Raises:
        InvalidBodyError: it has too many fields.
    """
    return nested(_pairs(query))


def nested(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """An object of fields; names such as `loras[0][path]` and `lora.path` lead into it.

    A field that comes several times is a list.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        *way, last = _STEP.findall(name) or [name]
        inside = found
        for step in way:
            inner = inside.get(step)
            if not isinstance(inner, dict):
                if inner is not None:
                    raise InvalidBodyError(f"The field {step!r} is a value and an object at once.")
                inner = inside[step] = {}
            inside = inner
        inside[last] = _beside(inside[last], value) if last in inside else value
    return found


def _beside(old: Any, new: Any) -> list[Any]:
    return [*old, new] if isinstance(old, list) else [old, new]


def _pairs(text: str) -> Iterator[tuple[str, Any]]:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError as error:
        raise InvalidBodyError(f"The form cannot be read: {error}.") from error
    yield from ((name, FormText(value)) for name, value in pairs)


def _multipart(body: bytes, content_type: str) -> Iterator[tuple[str, Any]]:
    """The fields of a multipart form, as python-multipart reads them for Starlette too.

    Raises:
        InvalidBodyError: it cannot be read, is cut off, or could be read in two ways.
    """
    try:
        from python_multipart import parse_form
    except ImportError as error:
        raise InvalidBodyError(
            "Multipart forms need python-multipart in the application: "
            "pip install 'loragate[asgi]'."
        ) from error
    from io import BytesIO

    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import parse_options_header

    _, options = parse_options_header(content_type)
    end = b"--" + options.get(b"boundary", b"") + b"--"
    if not body.rstrip().endswith(end):
        raise InvalidBodyError("The multipart form has no end, or no boundary.")
    if _ENCODED.search(body):
        # One reader decodes such a part, and another takes it as it is.
        raise InvalidBodyError("A part of the form is encoded. Send the parts as they are.")
    found: list[tuple[str, Any]] = []

    def on_field(field: Any) -> None:
        name, value = field.field_name or b"", field.value or b""
        found.append((name.decode("utf-8"), FormText(value.decode("utf-8"))))

    def on_file(file: Any) -> None:
        file.file_object.seek(0)
        name, file_name = file.field_name or b"", file.file_name or b""
        data = file.file_object.read()
        found.append((name.decode("utf-8"), Upload(file_name.decode("utf-8", "replace"), data)))

    headers = {"Content-Type": content_type.encode(), "Content-Length": str(len(body)).encode()}
    try:
        parse_form(headers, BytesIO(body), on_field, on_file)
    except (FormParserError, UnicodeDecodeError, ValueError) as error:
        raise InvalidBodyError(f"The multipart form cannot be read: {error}.") from error
    if len(found) > _MOST_FIELDS:
        raise InvalidBodyError("The multipart form has too many fields.")
    yield from found
