"""What holds for every request; tests and the fuzzer check it."""

from __future__ import annotations

import json
import math
from typing import Any

from loragate_server.intercept.base import ImageServer
from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.reading.bodies import BodyLimits, parse_json, plain_bytes
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.carriers import WEIGHTS, Carrier
from tests.server.intercept.strategies import NAME, PATH


def answers_or_refuses(server: ImageServer, request: HttpRequest) -> bool:
    """A request gives an extraction or a refusal with a remedy; True when there are adapters."""
    try:
        extraction = server.extract(request)
    except RefusedRequestError as refusal:
        check_refusal(refusal)
        return False
    assert len(extraction.adapters) == len(extraction.places)
    for reference in extraction.adapters:
        assert reference.source_count == 1
        for strength in reference.strengths:
            assert math.isfinite(strength.denoiser)
            assert math.isfinite(strength.text_encoder)
    assert request.body_complete or not extraction.adapters
    return bool(extraction.adapters)


def check_refusal(refusal: RefusedRequestError) -> None:
    """A refusal says why, and what can be done."""
    assert refusal.message
    assert refusal.remedy


def finds_the_lora(server: ImageServer, carrier: Carrier) -> bool:
    """The LoRA that a request carries is among its adapters."""
    extraction = server.extract(carrier.request)
    sources = [one.path or one.inline_bytes for one in extraction.adapters]
    assert PATH in sources or WEIGHTS in sources
    return True


def rewrites_only_the_reference(server: ImageServer, carrier: Carrier) -> bool:
    """Every reference becomes what it is told to, and everything else stays as it was."""
    before = server.extract(carrier.request)
    wanted = {
        number: f"/loras/audited/{number:064x}.safetensors"
        for number, reference in enumerate(before.adapters)
        if reference.path == PATH
    }
    if not wanted:
        return False
    number = min(wanted)
    wanted = dict.fromkeys(wanted, wanted[number])
    body = server.rewrite(carrier.request, wanted)
    if body is None:
        return False
    request = carrier.request
    rewritten = HttpRequest(request.method, request.path, request.query, request.headers, body)
    after = server.extract(rewritten)
    name = wanted[number].rpartition("/")[2].removesuffix(".safetensors")
    for index, (old, new) in enumerate(zip(before.adapters, after.adapters, strict=True)):
        assert (old.strengths, old.optional) == (new.strengths, new.optional)
        if index in wanted:
            assert name in (new.path or "")
        else:
            assert old == new
    assert _without_names(request, name) == _without_names(rewritten, name)
    return True


def _without_names(request: HttpRequest, name: str) -> Any:
    """The body with the reference taken out in every way in which it may be written."""
    limits = BodyLimits()
    text = plain_bytes(request, limits).decode()
    kind = request.header("content-type")
    escaped = NAME.replace("evil", "\\u0065vil")
    # A string that holds a reference among other words is written anew.
    text = text.replace('\\"l\\u006fra', '\\"lora')
    for one in (NAME, f"\\{escaped}", escaped, name):
        for spelled in (
            f"/loras/audited/{one}.safetensors",
            f"audited/{one}.safetensors",
            f"/loras/{one}.safetensors",
            f"{one}.safetensors",
            one,
        ):
            text = text.replace(spelled, "HERE")
    if not kind.startswith("multipart"):
        parse_json(text, limits, "The body")
    return text


def loads_nothing(server: ImageServer, path: str, value: Any) -> None:
    """A request without a LoRA passes with an empty extraction."""
    request = HttpRequest("POST", path, "", {}, json.dumps(value).encode())
    assert server.extract(request).adapters == ()
