"""What a stored request to an image server would be read as, and why. Nothing is audited."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from loragate_server.adapter.reference import AdapterReference, Strength
from loragate_server.app.extractors import make_extractors
from loragate_server.config.schema import Config, StartError
from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import Extraction, RefusedRequestError
from loragate_server.intercept.request import HttpRequest, Message, is_length


@dataclass(frozen=True)
class Explanation:
    """What is said of a request.

    Attributes:
        refused: whether it would not pass, whatever its adapters are.
    """

    lines: tuple[str, ...]
    refused: bool


def explain(config: Config, name: str, stored: bytes, message: bytes | None = None) -> Explanation:
    """Reads a request as the proxy's question about it would be read.

    Args:
        config: with the extractors.
        name: of the extractor; empty for the default.
        stored: the request as HTTP/1.1 writes it.
        message: of the client, in the WebSocket that the request opens.

    Raises:
        StartError: there is no such extractor, or the text is no request.
    """
    extractors = make_extractors(config.intercept)
    chosen = name or config.intercept.chosen_extractor
    extractor = extractors.get(chosen)
    if not isinstance(extractor, ImageServer):
        known = ", ".join(sorted(extractors)) or "none"
        raise StartError(f"there is no extractor {chosen!r}; configured are {known}")
    request = stored_request(stored)
    if message is not None:
        request = replace(request, headers={}, body=message, message=_kind(message))
    asked = f"{request.method} {request.path}, {len(request.body)} bytes of body"
    lines = [f"request: {asked}", f"extractor: {chosen}, of the kind {extractor.kind}"]
    try:
        lines.append(f"route: {extractor.reached(request)}")
        return Explanation((*lines, *_told(extractor.extract(request))), refused=False)
    except RefusedRequestError as error:
        refusal = (f"refused: {error.code.value}", f"because: {error.message}")
        return Explanation((*lines, *refusal, f"remedy: {error.remedy}"), refused=True)


def _kind(message: bytes) -> Message:
    try:
        message.decode()
    except UnicodeDecodeError:
        return Message.BINARY
    return Message.TEXT


def stored_request(stored: bytes) -> HttpRequest:
    """A request from its text.

    Raises:
        StartError: the text does not begin as a request does.
    """
    # Editors write line feeds alone. The body may hold any bytes, which stay as they are.
    head, _, body = min(
        (stored.partition(end) for end in (b"\r\n\r\n", b"\n\n")), key=lambda parts: len(parts[0])
    )
    first, *others = head.decode("latin-1").splitlines() or [""]
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise StartError("the request does not begin as 'POST /path HTTP/1.1' does")
    headers: dict[str, str] = {}
    for line in others:
        name, colon, value = line.partition(":")
        if not colon:
            raise StartError(f"the header {line[:40]!r} has no colon")
        key = name.strip().lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    length = headers.get("content-length", "")
    if is_length(length) and body[int(length) :].strip() == b"":
        body = body[: int(length)]  # editors put a line's end behind it
    path, _, query = words[1].partition("?")
    complete = not length or length == str(len(body))
    return HttpRequest(words[0].upper(), path, query, headers, body, body_complete=complete)


def _told(extraction: Extraction) -> Iterator[str]:
    if extraction.unlisted:
        yield f"passes: unknown_routes is {extraction.unlisted}"
    elif not extraction.adapters:
        yield "passes: it loads no adapter"
    else:
        yield f"asks about {len(extraction.adapters)} adapters, together and alone"
    for place, one in zip(extraction.places, extraction.adapters, strict=True):
        told = ", ".join(_strength(each) for each in one.strengths)
        optional = "; the server may leave it out" if one.optional else ""
        yield f"  {place}: {_source(one)} at {told}{optional}"


def _source(one: AdapterReference) -> str:
    inline = None if one.inline_bytes is None else f"{len(one.inline_bytes)} bytes in the request"
    file = f" {one.weight_name}" if one.weight_name else ""
    return f"{one.path or one.uri or inline}{file}"


def _strength(one: Strength) -> str:
    if one.denoiser == one.text_encoder:
        return f"{one.denoiser:g}"
    return f"{one.denoiser:g} (text encoder {one.text_encoder:g})"
