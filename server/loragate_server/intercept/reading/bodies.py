"""Reads a body the way its server will, and refuses what two readers could read in two ways."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from python_multipart.multipart import parse_options_header

from loragate_server import strict_json
from loragate_server.intercept.reading.inflating import inflated
from loragate_server.intercept.refusals import ambiguous_body, incomplete, unreadable
from loragate_server.intercept.request import HttpRequest, is_length

FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

_MAX_TYPE_CHARS = 1000
_PLAIN_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
# Raw deflate, without the header of zlib, is left out: its bytes can at once be valid JSON, so a
# server that ignores the coding would read something else.
_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# Each takes some hundred times the memory that it takes in the text.
_MAX_VALUES = 2_000_000
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class BodyLimits:
    """How much of a body is read.

    Attributes:
        max_bytes: after a content coding is undone.
        max_nesting: how deep objects and lists may stand in each other.
        infinite: whether NaN and Infinity may stand for numbers, as they do where the server is
            Python's and clients send them.
    """

    max_bytes: int = 32 * 1024 * 1024
    max_nesting: int = 100
    infinite: bool = False


@dataclass(frozen=True)
class JsonText:
    """A JSON document as text and as value."""

    text: str
    value: Any


def media_type(request: HttpRequest) -> tuple[str, Mapping[str, str]]:
    """The type of the body in lower case and its parameters.

    Raises:
        RefusedRequestError: BODY_AMBIGUOUS for two types, or a charset other than UTF-8.
    """
    header = request.header("content-type")
    if len(header) > _MAX_TYPE_CHARS:
        raise ambiguous_body("The Content-Type is too long to be one.", "Send a plain one.")
    outside_quotes = re.sub(r'"[^"]*"', "", header)
    names = re.findall(r";\s*([^=;\s]+)", outside_quotes.lower())
    if "," in outside_quotes or len(set(names)) != len(names):
        raise ambiguous_body("The request has several content types.", "Send one Content-Type.")
    try:
        raw_kind, raw_options = parse_options_header(header or None)
        kind = raw_kind.decode("ascii").strip().lower()
        options = {key.decode().lower(): value.decode() for key, value in raw_options.items()}
    except (UnicodeError, ValueError) as error:
        raise ambiguous_body("The Content-Type cannot be read.", "Send a plain one.") from error
    # aiohttp and others decode by the charset, so that another text would reach the server.
    if options.get("charset", "utf-8").strip().lower() not in _PLAIN_CHARSETS:
        raise ambiguous_body("The body is not in UTF-8.", "Send UTF-8.")
    return kind, options


def plain_bytes(request: HttpRequest, limits: BodyLimits) -> bytes:
    """The body with its content coding undone.

    Raises:
        RefusedRequestError: BODY_INCOMPLETE, BODY_AMBIGUOUS or BODY_UNREADABLE.
    """
    check_whole(request)
    coding = content_coding(request)
    data = request.body if coding == "identity" else _inflate(request.body, coding, limits)
    if len(data) > limits.max_bytes:
        raise _too_large(limits)
    return data


def check_whole(request: HttpRequest) -> None:
    """Refuses a body of which the proxy showed only a part.

    Raises:
        RefusedRequestError: BODY_INCOMPLETE.
    """
    remedy = "Let the proxy send the whole body to loragate, or send a smaller one."
    if not request.body_complete:
        raise incomplete("The proxy cut the body off.", remedy)
    length = request.header("content-length").strip()
    if length and not is_length(length):
        raise ambiguous_body("The Content-Length is no number.", "Send one Content-Length.")
    if length and int(length) > len(request.body):
        raise incomplete(
            f"The body has {int(length)} bytes, of which {len(request.body)} came.", remedy
        )


def content_coding(request: HttpRequest) -> str:
    """How the body is compressed: "identity", "gzip", "x-gzip" or "deflate".

    Raises:
        RefusedRequestError: BODY_AMBIGUOUS for any other coding.
    """
    transfer = request.header("transfer-encoding").strip().lower()
    if transfer not in ("", "chunked", "identity"):
        raise ambiguous_body(
            "The body has a transfer coding that is not read.", "Send it plain or chunked."
        )
    coding = request.header("content-encoding").strip().lower() or "identity"
    if coding != "identity" and coding not in _WINDOW_BITS:
        raise ambiguous_body(
            "The body has a content coding that is not read.",
            "Send it plain, or with one of gzip and deflate.",
        )
    return coding


def coded_again(data: bytes, request: HttpRequest) -> bytes:
    """A body compressed as that of the request was."""
    coding = content_coding(request)
    if coding == "identity":
        return data
    packer = zlib.compressobj(wbits=_WINDOW_BITS[coding])
    return packer.compress(data) + packer.flush()


def read_json(request: HttpRequest, limits: BodyLimits) -> JsonText:
    """The body as JSON, whatever its content type says: many servers do not look at that.

    Raises:
        RefusedRequestError: BODY_INCOMPLETE, BODY_AMBIGUOUS or BODY_UNREADABLE.
    """
    media_type(request)
    data = plain_bytes(request, limits)
    if not data.strip():
        raise incomplete(
            "The request came without a body.",
            "Send one, and let the proxy pass it on to loragate.",
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise unreadable("The body is not in UTF-8.", "Send JSON in UTF-8.") from error
    return parse_json(text, limits, "The body")


def read_object(request: HttpRequest, limits: BodyLimits) -> tuple[JsonText, dict[str, Any]]:
    """The body as a JSON object, as text and as value.

    Raises:
        RefusedRequestError: as `read_json`, and BODY_UNREADABLE for another JSON value.
    """
    document = read_json(request, limits)
    if not isinstance(document.value, dict):
        raise unreadable("The body is no JSON object.", "Send a JSON object.")
    return document, document.value


def parse_json(text: str, limits: BodyLimits, what: str) -> JsonText:
    """Strict JSON: no name twice, no byte order mark, nothing behind the end, no NaN by default.

    Raises:
        RefusedRequestError: BODY_AMBIGUOUS or BODY_UNREADABLE.
    """
    remedy = "Send plain JSON in UTF-8."
    openings = text.count("{") + text.count("[")
    if openings + text.count(",") > _MAX_VALUES:
        raise unreadable(f"{what} has more than {_MAX_VALUES} values.", "Send fewer.")
    try:
        value = strict_json.read(text, infinite=limits.infinite)
    except strict_json.DoubledNameError as error:
        raise ambiguous_body(
            "A JSON object in the body has the same name twice.", "Send every name once."
        ) from error
    except strict_json.NoNumberError as error:
        raise unreadable("The body holds NaN or Infinity.", "Send finite numbers.") from error
    except (ValueError, RecursionError) as error:
        raise unreadable(f"{what} is no valid JSON.", remedy) from error
    if _ESCAPED_SURROGATE.search(text) and not _encodable(value):
        raise unreadable(f"{what} holds half a character.", remedy)
    if openings > limits.max_nesting and strict_json.nesting(value) > limits.max_nesting:
        raise unreadable(
            f"{what} is nested deeper than {limits.max_nesting} levels.", "Send a flatter one."
        )
    return JsonText(text, value)


def _inflate(data: bytes, coding: str, limits: BodyLimits) -> bytes:
    try:
        plain = inflated(data, _WINDOW_BITS[coding], limits.max_bytes)
    except zlib.error as error:
        raise unreadable(
            f"The body is no {coding} data.", "Send what Content-Encoding says."
        ) from error
    except EOFError as error:
        raise unreadable(
            f"The {coding} data of the body is cut off or followed by more.",
            "Send one complete stream.",
        ) from error
    return plain


def _too_large(limits: BodyLimits) -> Exception:
    return unreadable(
        f"The body has more than {limits.max_bytes} bytes.",
        "Send a smaller one, or raise max_body_bytes.",
    )


def _encodable(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
