"""What is sent on of an inference reads as what was sent, but for the adapters in it."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as triton

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.request import HttpRequest, Message
from tests.server.intercept.bodies import chunk, extractor, framed, varint

SERVER = extractor("kserve")
COPIES = "/copies/{}.safetensors"
NAMED = ("lora_path", "LoRA", "adapter_uri")

keys = st.sampled_from([*NAMED, "", "steps", "lora_scale", "name"]).map(str.encode)
texts = st.sampled_from(["/loras/a.safetensors", "/loras/b.safetensors", "0.5", ""]).map(str.encode)


def field(number: int, kind: int, payload: bytes) -> bytes:
    return varint(number << 3 | kind) + payload


odd = st.sampled_from(
    [
        field(1, 0, b"\x80\x00"),
        field(2, 0, b"\x07"),
        field(3, 0, b"\x01"),
        field(4, 1, struct.pack("<d", 0.25)),
        field(4, 5, struct.pack("<f", 0.25)),
        field(15, 2, b"\x01x"),
        b"\x8a\x00\x01k",
        b"\x1a\x81\x00/",
        b"\x03\x04",
        b"",
    ]
)
values = st.one_of(
    texts.map(lambda text: chunk(3, text)),
    st.sampled_from(
        [field(1, 0, b"\x01"), field(2, 0, b"\x05"), field(4, 1, struct.pack("<d", 0.5))]
    ),
    odd,
)


def several(*parts: st.SearchStrategy[bytes], most: int = 3) -> st.SearchStrategy[bytes]:
    return st.lists(st.one_of(*parts), max_size=most).map(b"".join)


entries = st.one_of(
    st.tuples(keys.map(lambda key: chunk(1, key)), values.map(lambda one: chunk(2, one))).flatmap(
        lambda pair: st.permutations(pair).map(b"".join)
    ),
    several(keys.map(lambda key: chunk(1, key)), values.map(lambda one: chunk(2, one)), odd),
)
inputs = st.tuples(
    st.sampled_from([b"", chunk(1, b"prompt"), chunk(1, b"lora_path")]),
    several(entries.map(lambda one: chunk(4, one)), st.just(chunk(3, b"\x01")), odd),
).map(b"".join)
outputs = several(entries.map(lambda one: chunk(2, one)), st.just(chunk(1, b"image")))
messages = several(
    st.just(chunk(1, b"m")),
    entries.map(lambda one: chunk(4, one)),
    inputs.map(lambda one: chunk(5, one)),
    outputs.map(lambda one: chunk(6, one)),
    st.just(chunk(7, b"\x00tensor")),
    odd,
    most=6,
)


def of_stream(message: bytes) -> HttpRequest:
    path = "/inference.GRPCInferenceService/ModelStreamInfer"
    headers = {"content-type": "application/grpc"}
    return HttpRequest("POST", path, "", headers, framed(message), message=Message.GRPC)


def holders(request: triton.ModelInferRequest) -> list[object]:
    """Whatever has parameters, in the order in which adapters are found."""
    return [request, *request.inputs, *request.outputs]


@settings(max_examples=400, deadline=None)
@given(messages)
def test_triton_reads_what_was_sent_with_the_copies_in_the_place_of_the_adapters(
    message: bytes,
) -> None:
    shown = of_stream(message)
    try:
        adapters = SERVER.extract(shown).adapters
    except RefusedRequestError:
        return
    expected = triton.ModelInferRequest.FromString(message)
    named = [
        parameter
        for holder in holders(expected)
        for key, parameter in holder.parameters.items()  # type: ignore[attr-defined]
        if key in NAMED and parameter.string_param
    ]
    paths = {one.path: COPIES.format(number) for number, one in enumerate(adapters)}
    assert {one.string_param for one in named} == set(paths)
    copies = {number: paths[one.path] for number, one in enumerate(adapters)}
    for parameter in named:
        parameter.string_param = paths[parameter.string_param]
    body = SERVER.rewrite(shown, copies)
    assert body is not None
    assert triton.ModelInferRequest.FromString(body[5:]) == expected
