"""Edges of the extractors of inferences, each where a wrong change was left unnoticed."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue

from loragate_server.intercept.extraction import RefusalCode, RefusedRequestError
from loragate_server.intercept.request import HttpRequest
from loragate_server.intercept.servers import protobuf_wire
from tests.server.intercept.bodies import ROUTES, chunk, extractor, framed, post, varint
from tests.server.intercept.verdicts import EVIL, found, refusal

LENGTH = "inference_header_content_length"
MODEL = chunk(1, b"m")
LORA = chunk(4, chunk(1, b"lora_path") + chunk(2, chunk(3, EVIL.encode())))


def infer(message: bytes) -> HttpRequest:
    headers = {"content-type": "application/grpc"}
    path = "/inference.GRPCInferenceService/ModelInfer"
    return HttpRequest("POST", path, "", headers, framed(message))


def parameter(name: str, value: bytes) -> bytes:
    return chunk(4, chunk(1, name.encode()) + chunk(2, value))


def optional(server: str, request: HttpRequest) -> dict[str | None, bool]:
    adapters = extractor(server).extract(request).adapters
    return {one.path: one.optional for one in adapters}


def test_each_of_two_lists_is_read_as_a_whole_or_not() -> None:
    lists = {"lora": ["/loras/a.safetensors", "/loras/b.safetensors"], "adapter": [EVIL]}
    assert optional("kserve", post(ROUTES["kserve"], {"parameters": lists})) == {
        "/loras/a.safetensors": True,
        "/loras/b.safetensors": True,
        EVIL: True,
    }


def test_the_files_of_a_load_need_not_be_active_together() -> None:
    config = {"parameters": {"lora_path": {"string_value": EVIL}}}
    file = base64.b64encode(b"weights").decode()
    parameters = {"config": json.dumps(config), "file:1/a.safetensors": file}
    request = post(ROUTES["triton"], {"parameters": parameters})
    assert optional("triton", request) == {EVIL: True, None: True}


@pytest.mark.parametrize("file", ["Zm9v!", "Zm 9v", "Zm9", "Zm9v\n"])
def test_a_file_that_is_not_all_base64_is_refused(file: str) -> None:
    request = post(ROUTES["triton"], {"parameters": {"file:1/a.safetensors": file}})
    assert refusal("triton", request) == RefusalCode.ADAPTER_UNNAMED


def with_length(length: str) -> HttpRequest:
    body = json.dumps({"parameters": {"lora_path": EVIL}}).encode()
    return post(ROUTES["kserve"], body, **{LENGTH: length.replace("N", str(len(body)))})


def test_the_json_may_be_the_whole_body() -> None:
    assert found("kserve", with_length("N")) == [EVIL]
    assert found("kserve", with_length("0" * 16 + "N")) == [EVIL]


@pytest.mark.parametrize("length", ["0" * 17 + "N", "0" * 18 + "9" * 5000, "9" * 5000])
def test_a_length_of_more_than_eighteen_digits_is_none(length: str) -> None:
    assert refusal("kserve", with_length(length)) == RefusalCode.BODY_AMBIGUOUS


def test_a_number_on_the_wire_has_sixty_four_bits_whatever_is_written_above_them() -> None:
    scale = parameter("lora_scale", varint(5 << 3) + varint((1 << 64) + 2))
    (one,) = extractor("kserve").extract(infer(MODEL + LORA + scale)).adapters
    assert [each.denoiser for each in one.strengths] == [2.0]


def test_a_parameter_has_one_value() -> None:
    two = chunk(3, b"/loras/ink.safetensors") + chunk(3, EVIL.encode())
    assert refusal("kserve", infer(MODEL + parameter("lora", two))) == RefusalCode.BODY_AMBIGUOUS


@pytest.mark.parametrize("length", [1, 127, 128, 16_383, 16_384])
def test_a_field_is_written_with_no_byte_too_many(length: int) -> None:
    data = bytes(length)
    assert protobuf_wire.chunk(1, data) == BytesValue(value=data).SerializeToString()


@pytest.mark.parametrize("end", [b"\x80", b"\x22", b"\x22\x80", b"\x22\x05a", b"\x08\x80"])
def test_a_message_that_is_cut_off_is_refused(end: bytes) -> None:
    assert refusal("kserve", infer(MODEL + LORA + end)) == RefusalCode.BODY_UNREADABLE


def test_a_number_on_the_wire_has_ten_bytes_at_most() -> None:
    steps = parameter("steps", varint(2 << 3) + b"\xff" * 9 + b"\x01")
    assert found("kserve", infer(MODEL + steps + LORA)) == [EVIL]
    steps = parameter("steps", varint(2 << 3) + b"\x81" * 10 + b"\x00")
    assert refusal("kserve", infer(MODEL + steps + LORA)) == RefusalCode.BODY_UNREADABLE


@pytest.mark.parametrize(("coding", "bits"), [("gzip", 31), ("deflate", 15)])
def test_a_message_is_compressed_as_it_says(coding: str, bits: int) -> None:
    def sent(said: str) -> HttpRequest:
        packer = zlib.compressobj(wbits=bits)
        packed = packer.compress(MODEL + LORA) + packer.flush()
        request = infer(b"")
        headers = {**request.headers, "grpc-encoding": said}
        return replace(request, headers=headers, body=framed(packed, flag=1))

    assert found("kserve", sent(coding)) == [EVIL]
    for other in {"gzip", "deflate"} - {coding}:
        assert refusal("kserve", sent(other)) == RefusalCode.BODY_UNREADABLE
    assert refusal("kserve", sent("zstd")) == RefusalCode.BODY_AMBIGUOUS


def strengths(**parameters: Any) -> set[float]:
    request = post(ROUTES["kserve"], {"parameters": {"lora": EVIL, **parameters}})
    (one,) = extractor("kserve").extract(request).adapters
    return {each.denoiser for each in one.strengths}


def test_what_is_no_number_or_of_something_else_is_no_strength_of_an_adapter() -> None:
    assert strengths(style_scale=0.3) == {0.3, 1.0}
    assert strengths(guidance_scale=7.5, style_scale=0.3, paper_scale="A4") == {0.3, 1.0}


def test_sixteen_strengths_are_tried_and_no_more() -> None:
    given = {f"part{number}_scale": number / 100 for number in range(17)}
    with pytest.raises(RefusedRequestError, match="has many strengths"):
        strengths(**given)
    del given["part0_scale"]
    assert len(strengths(**given)) == 17


def test_requests_in_a_list_are_read_apart_and_a_list_of_adapters_as_a_whole() -> None:
    a, b = "/loras/a.safetensors", "/loras/b.safetensors"
    for name in ("inputs", "items"):
        apart = {name: [{"parameters": {"lora": path}} for path in (a, b)]}
        assert optional("kserve", post(ROUTES["kserve"], apart)) == {a: True, b: True}
    plain = {"inputs": [{"lora": path} for path in (a, b)]}
    assert optional("kserve", post(ROUTES["kserve"], plain)) == {a: True, b: True}
    whole = {"lora": [{"path": path} for path in (a, b)]}
    assert optional("kserve", post(ROUTES["kserve"], whole)) == {a: False, b: False}


GOOD = "/loras/good.safetensors"


@pytest.mark.parametrize(
    "parameters",
    [
        {"loras": [{"path": EVIL, "lora": GOOD}]},
        {"loras": [{"path": EVIL}, {"lora_path": GOOD}]},
        {"loras": [EVIL, {"lora": GOOD}]},
        {"lora": {"path": EVIL, "x": {"lora": GOOD}}},
        {"loras": [{"lora": GOOD}, {"uri": EVIL}]},
    ],
)
def test_one_way_of_naming_an_adapter_hides_no_other_beside_it(parameters: dict[str, Any]) -> None:
    asked = post(ROUTES["kserve"], {"parameters": parameters})
    assert sorted(map(str, optional("kserve", asked))) == sorted([EVIL, GOOD])


@pytest.mark.parametrize(
    "loras",
    [
        [[EVIL], {"lora": GOOD}],
        [{"file": EVIL}, {"lora": GOOD}],
        [3, {"lora": GOOD}],
        [{}, {"lora": GOOD}],
        [{"path": EVIL, "uri": GOOD}],
    ],
)
def test_what_stands_beside_an_adapter_has_to_be_understood(loras: list[Any]) -> None:
    asked = post(ROUTES["kserve"], {"parameters": {"loras": loras}})
    assert refusal("kserve", asked) == RefusalCode.ADAPTER_UNNAMED


def test_two_strengths_that_speak_of_adapters_are_refused() -> None:
    assert strengths(lora_scale=0.5) == {0.5}
    assert strengths(LORA_SCALE=0.5) == {0.5, 1.0}
    with pytest.raises(RefusedRequestError, match="has several strengths"):
        strengths(lora_scale=0.5, adapter_scale=0.7)


@pytest.mark.parametrize(("count", "told_apart"), [(64, True), (65, False)])
def test_of_sixty_four_adapters_it_is_told_that_each_may_be_left_out(
    count: int, told_apart: bool
) -> None:
    given = {f"lora{number}": f"/loras/{number}.safetensors" for number in range(count)}
    one_for_each = optional("kserve", post(ROUTES["kserve"], {"parameters": given}))
    assert list(one_for_each.values()) == [told_apart] * count


@pytest.mark.parametrize("nothing", [None, "", [], {}, True, False, 3, 0.5])
def test_a_parameter_that_holds_no_name_names_no_adapter(nothing: Any) -> None:
    assert found("kserve", post(ROUTES["kserve"], {"parameters": {"lora": nothing}})) == []


def test_an_empty_message_asks_for_nothing() -> None:
    assert found("kserve", infer(b"")) == []
    assert refusal("kserve", replace(infer(b""), body=b"\0\0\0\0")) == RefusalCode.BODY_UNREADABLE


def test_the_prefix_of_a_message_says_what_follows_in_all_its_bytes() -> None:
    packer = zlib.compressobj(wbits=31)
    packed = packer.compress(MODEL + LORA) + packer.flush()
    headers = {**infer(b"").headers, "grpc-encoding": "gzip"}
    odd = replace(infer(b""), headers=headers, body=framed(packed, flag=2))
    assert refusal("kserve", odd) == RefusalCode.BODY_UNREADABLE
    for first in (b"\0\1", b"\2\0"):
        longer = replace(infer(b""), body=first + framed(MODEL + LORA)[2:])
        assert refusal("kserve", longer) == RefusalCode.BODY_UNREADABLE


@pytest.mark.parametrize("name", ["adapter_weight", "lora_upscaler", "lora_scale"])
@pytest.mark.parametrize("text", [EVIL, "studio/evil", "evil", "0.5.1"])
def test_a_text_in_the_place_of_a_strength_has_to_be_a_number(name: str, text: str) -> None:
    request = post(ROUTES["kserve"], {"parameters": {name: text}})
    assert refusal("kserve", request) == RefusalCode.ADAPTER_AMBIGUOUS
    assert found("kserve", post(ROUTES["kserve"], {"parameters": {name: "0.5"}})) == []


@pytest.mark.parametrize(
    "field", [chunk(9, b"x"), b"\x48\x01", b"\x49" + bytes(8), b"\x4d" + bytes(4)]
)
def test_a_field_that_nobody_knows_is_told_from_none(field: bytes) -> None:
    request = infer(MODEL + field + LORA)
    assert refusal("kserve", request) == RefusalCode.BODY_AMBIGUOUS
    assert refusal("kserve", infer(MODEL + field[:-1])) == RefusalCode.BODY_UNREADABLE


def test_a_field_of_no_kind_is_none() -> None:
    for kind in (3, 4, 6, 7):
        request = infer(MODEL + varint(9 << 3 | kind) + bytes(4))
        assert refusal("kserve", request) == RefusalCode.BODY_UNREADABLE


def test_only_a_load_writes_its_texts_as_a_configuration_does() -> None:
    body = {"parameters": {"lora": {"string_value": EVIL}}}
    load = post("/v2/repository/models/m/load", body)
    assert found("kserve", load, allow_repository_loads=True) == [EVIL]
    assert refusal("kserve", post(ROUTES["kserve"], body)) == RefusalCode.ADAPTER_UNNAMED
