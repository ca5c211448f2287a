"""Inference requests over gRPC with numbers of every width on the wire."""

from __future__ import annotations

import struct

import pytest

from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import chunk, framed, varint
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
        varint(4 << 3 | 5) + struct.pack("<f", 0.5),
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
        MODEL + chunk(5, chunk(1, b"t") + chunk(1, b"u")),
    ],
)
def test_a_message_that_two_readers_may_read_in_two_ways_is_refused(message: bytes) -> None:
    assert refusal("kserve", infer(message)) == RefusalCode.BODY_AMBIGUOUS
