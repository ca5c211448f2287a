"""Inference requests with numbers of every width, and with tensors behind their JSON."""

from __future__ import annotations

import gzip
import json
import struct

import pytest

from loragate_server.adapter.reference import Strength
from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import chunk, extractor, framed, post, varint
from tests.server.intercept.verdicts import EVIL, found, refusal

LORA = chunk(4, chunk(1, b"lora_path") + chunk(2, chunk(3, EVIL.encode())))
MODEL = chunk(1, b"m")


def infer(message: bytes) -> HttpRequest:
    headers = {"content-type": "application/grpc"}
    path = "/inference.GRPCInferenceService/ModelInfer"
    return HttpRequest("POST", path, "", headers, framed(message))


def parameter(name: str, value: bytes) -> bytes:
    return chunk(4, chunk(1, name.encode()) + chunk(2, value))


@pytest.mark.parametrize(
    "value",
    [
        varint(1 << 3) + b"\x01",
        varint(2 << 3) + varint(1 << 62),
        varint(2 << 3) + b"\xff" * 9 + b"\x01",
        varint(4 << 3 | 1) + struct.pack("<d", 0.5),
        varint(5 << 3) + b"\x07",
    ],
)
def test_a_lora_beside_any_number_is_found(value: bytes) -> None:
    message = MODEL + parameter("steps", value) + LORA
    assert found("kserve", infer(message)) == [EVIL]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (varint(6 << 3) + b"\x01", RefusalCode.BODY_AMBIGUOUS),
        (varint(4 << 3 | 1) + b"\x00" * 7, RefusalCode.BODY_UNREADABLE),
        (varint(4 << 3 | 5) + b"\x00" * 3, RefusalCode.BODY_UNREADABLE),
        (varint(4 << 3 | 5) + struct.pack("<f", 0.5), RefusalCode.BODY_UNREADABLE),
        (varint(1 << 3 | 1) + b"\x00" * 8, RefusalCode.BODY_UNREADABLE),
        (varint(2 << 3 | 1) + b"\x00" * 8, RefusalCode.BODY_UNREADABLE),
        (varint(4 << 3) + b"\x00", RefusalCode.BODY_UNREADABLE),
        (varint(3 << 3) + b"\x00", RefusalCode.BODY_UNREADABLE),
        (varint(4 << 3 | 3), RefusalCode.BODY_UNREADABLE),
        (varint(2 << 3) + b"\xff" * 10, RefusalCode.BODY_UNREADABLE),
        (varint(2) + b"\x00", RefusalCode.BODY_UNREADABLE),
        (chunk(1, b"true"), RefusalCode.BODY_UNREADABLE),
    ],
)
def test_a_value_of_another_kind_or_length_is_refused(value: bytes, code: RefusalCode) -> None:
    assert refusal("kserve", infer(MODEL + parameter("steps", value) + LORA)) == code


@pytest.mark.parametrize(
    "message",
    [
        MODEL + MODEL,
        MODEL + chunk(9, b"x"),
        MODEL + parameter("a", b"") + parameter("a", b""),
        MODEL + chunk(4, chunk(1, b"a") + chunk(1, b"b")),
        MODEL + chunk(4, chunk(3, b"a")),
        MODEL + chunk(4, chunk(1, b"a") + chunk(2, chunk(3, b"b")) + chunk(2, b"")),
        MODEL + chunk(5, chunk(1, b"t") + chunk(1, b"u")),
    ],
)
def test_a_message_that_two_readers_may_read_in_two_ways_is_refused(message: bytes) -> None:
    assert refusal("kserve", infer(message)) == RefusalCode.BODY_AMBIGUOUS


@pytest.mark.parametrize(
    ("value", "strength"),
    [
        (varint(4 << 3 | 1) + struct.pack("<d", 0.5), 0.5),
        (varint(4 << 3 | 1) + struct.pack("<d", -2.0), -2.0),
        (varint(2 << 3) + varint(3), 3.0),
        (varint(2 << 3) + varint((1 << 64) - 2), -2.0),
        (varint(5 << 3) + varint(4), 4.0),
        (chunk(3, b"0.25"), 0.25),
    ],
)
def test_a_strength_is_what_the_server_reads(value: bytes, strength: float) -> None:
    message = MODEL + LORA + parameter("lora_scale", value)
    [adapter] = extractor("kserve").extract(infer(message)).adapters
    assert adapter.strengths == (Strength(strength, strength),)


def test_a_strength_that_is_true_or_false_is_none() -> None:
    message = MODEL + LORA + parameter("lora_scale", varint(1 << 3) + b"\x00")
    assert refusal("kserve", infer(message)) == RefusalCode.ADAPTER_AMBIGUOUS


TEXT = json.dumps({"parameters": {"lora_path": EVIL}}).encode()


def with_tensor(length: str, coding: str = "identity") -> HttpRequest:
    """A request whose JSON a binary tensor follows."""
    body = TEXT + b"\xff\x00tensor"
    if coding == "gzip":
        body = gzip.compress(body, mtime=0)
    headers = {"inference_header_content_length": length, "content_encoding": coding}
    return post("/v2/models/m/infer", body, **headers)


def test_the_json_before_a_binary_tensor_is_read() -> None:
    assert found("kserve", with_tensor(str(len(TEXT)))) == [EVIL]


@pytest.mark.parametrize("length", ["-1", "x", "9" * 30, str(len(TEXT) + 100), "\u0661\u0660"])
def test_a_length_that_is_none_is_refused(length: str) -> None:
    assert refusal("kserve", with_tensor(length)) == RefusalCode.BODY_AMBIGUOUS


def test_the_json_before_a_packed_tensor_is_read_too() -> None:
    packed = with_tensor(str(len(TEXT)), "gzip")
    assert found("kserve", packed) == [EVIL]


@pytest.mark.parametrize("weight_name", ["", "a/b.safetensors", 7, ["a.safetensors"]])
def test_a_weight_name_that_is_no_file_name_is_refused(weight_name: object) -> None:
    config = {
        "lora_list": [{"lora_name": "x", "local_path": "/loras/x"}],
        "image_lora_load_kwargs": {"weight_name": weight_name},
    }
    request = post("/v1/models", {"peft_model_config": config})
    assert refusal("xinference", request) == RefusalCode.ADAPTER_AMBIGUOUS
