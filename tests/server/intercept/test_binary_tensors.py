"""Inference over HTTP with tensors behind the JSON, as Triton's own client sends it."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import extractor

CODINGS = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
LORA = "/elsewhere/ink.safetensors"


def inference(
    parameters: dict[str, Any], coding: str = "", length: int | None = None
) -> HttpRequest:
    document = json.dumps({"inputs": [{"name": "prompt"}], "parameters": parameters}).encode()
    body = CODINGS[coding](document + b"\x00\x01\xff" * 40)
    headers = {
        "content-encoding": coding,
        "content-length": str(len(body)),
        "inference-header-content-length": str(len(document) if length is None else length),
    }
    return HttpRequest("POST", "/v2/models/m/infer", "", headers, body)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("server", ["triton", "kserve"])
def test_the_json_before_the_tensors_is_read_compressed_or_not(server: str, coding: str) -> None:
    one = extractor(server)
    assert one.extract(inference({"steps": 8}, coding)).adapters == ()
    [found] = one.extract(inference({"lora_path": LORA}, coding)).adapters
    assert found.path == LORA


@pytest.mark.parametrize("coding", CODINGS)
def test_a_length_that_cuts_the_json_or_is_longer_than_the_body_is_refused(coding: str) -> None:
    for length in (0, 20, 100_000):
        with pytest.raises(RefusedRequestError):
            extractor("triton").extract(inference({"lora_path": LORA}, coding, length))


def test_a_bomb_before_the_tensors_is_refused() -> None:
    one = extractor("triton", max_body_bytes=1 << 20)
    body = gzip.compress(bytes(64 << 20))
    headers = {"content-encoding": "gzip", "inference-header-content-length": "2"}
    with pytest.raises(RefusedRequestError, match="has more than 1048576 bytes"):
        one.extract(HttpRequest("POST", "/v2/models/m/infer", "", headers, body))


def test_a_request_with_tensors_behind_it_is_never_rewritten() -> None:
    one = extractor("triton")
    assert one.rewrite(inference({"lora_path": LORA}), {0: "/store/aa.safetensors"}) is None
    plain = inference({"lora_path": LORA})
    document = plain.body[: int(plain.header("inference-header-content-length"))]
    rewritten = one.rewrite(
        HttpRequest("POST", plain.path, "", {}, document), {0: "/store/aa.safetensors"}
    )
    assert rewritten is not None
    assert b"/store/aa.safetensors" in rewritten
