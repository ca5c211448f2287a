"""A stream of gRPC through external processing: each message alone, each before it is sent on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate_server.intercept.extraction import RefusedRequestError
from loragate_server.intercept.servers.infer_wire import read_infer_request
from loragate_server.intercept.servers.kserve import KServe
from loragate_server.rpc.envoy import ext_proc_pb2 as wire
from loragate_server.rpc.ext_proc_streams import Frames
from tests.server.intercept.bodies import framed, infer_message
from tests.server.rpc.front import Front, MakeFront, files, front, house, post, tiny, until

__all__ = ["files", "front", "house", "post", "tiny", "until"]

STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
PLAIN = framed(infer_message({"model_name": "m", "parameters": {"steps": "4"}}))


def head(path: str = STREAM, kind: str = "application/grpc", mode: int = 4) -> bytes:
    """The headers of a request whose body Envoy shows in pieces."""
    told = {":method": "POST", ":path": path, "content-type": kind, "te": "trailers"}
    headers = wire.HeaderMap(
        headers=[wire.HeaderValue(key=key, raw_value=one.encode()) for key, one in told.items()]
    )
    return wire.ProcessingRequest(
        request_headers=wire.HttpHeaders(headers=headers),
        protocol_config=wire.ProtocolConfiguration(request_body_mode=mode),
    ).SerializeToString()


def shown(body: bytes, *, end: bool = False) -> bytes:
    """A piece of the body."""
    one = wire.HttpBody(body=body, end_of_stream=end)
    return wire.ProcessingRequest(request_body=one).SerializeToString()


TRAILERS = wire.ProcessingRequest(request_trailers=wire.HttpTrailers()).SerializeToString()


def naming(path: Path | str) -> bytes:
    """A message that names an adapter in a parameter of its second input."""
    inputs = [
        {"name": "prompt", "datatype": "BYTES"},
        {"name": "style", "datatype": "BYTES", "parameters": {"lora_path": str(path), "seed": "7"}},
    ]
    return framed(infer_message({"model_name": "m", "inputs": inputs, "raw": ["\x00tensor"]}))


async def streaming(front: MakeFront, **settings: object) -> Front:
    return await front(server=lambda _: KServe(label="plain"), **settings)


def sent_on(answers: Sequence[wire.ProcessingResponse]) -> list[bytes]:
    """What Envoy sends to the image server, piece by piece."""
    bodies = [one.request_body.response.body_mutation for one in answers]
    return [one.streamed_response.body for one in bodies if one.HasField("streamed_response")]


async def test_messages_without_an_adapter_are_sent_on_one_by_one(front: MakeFront) -> None:
    one = await streaming(front)
    answers = await one.process(head(), shown(PLAIN), shown(PLAIN), shown(PLAIN))
    assert answers[0].WhichOneof("response") == "request_headers"
    assert sent_on(answers) == [PLAIN] * 3
    assert one.post.told.counts == {("plain", "allow_no_adapter"): 4}


async def test_the_end_is_told_after_the_last_message(front: MakeFront) -> None:
    one = await streaming(front)
    *_, last = await one.process(head(), shown(b"", end=True))
    assert last.request_body.response.body_mutation.streamed_response.end_of_stream


async def test_a_message_is_made_to_name_the_audited_copy(front: MakeFront) -> None:
    one = await streaming(front)
    path = one.post.house.reference(0).path
    _, answer = await one.process(head(), shown(naming(path)))
    [body] = sent_on([answer])
    document = read_infer_request(body[5:])
    copy = document["inputs"][1]["parameters"]["lora_path"]
    assert Path(copy).is_relative_to(one.post.intake.store_dir)
    assert Path(copy).read_bytes() == Path(path).read_bytes()
    assert body == naming(copy)


async def test_a_forbidden_adapter_ends_the_stream_and_nothing_of_it_is_sent_on(
    front: MakeFront,
) -> None:
    one = await streaming(front)
    one.post.house.engine.score = 9.0
    evil = naming(one.post.house.reference(0).path)
    answers = await one.process(head(), shown(PLAIN), shown(evil), shown(PLAIN))
    assert sent_on(answers) == [PLAIN]
    assert answers[-1].immediate_response.status.code == 403
    assert b"adapter_block" in answers[-1].immediate_response.body


@pytest.mark.parametrize(
    ("kind", "stream"),
    [
        ("another route", [head("/inference.GRPCInferenceService/ModelInfer")]),
        ("a path with a dot", [head(f"/x/..{STREAM}%2f")]),
        ("no gRPC", [head(kind="application/json")]),
        ("gRPC of JSON", [head(kind="application/grpc+json")]),
        ("a body as a whole", [head(mode=2)]),
        ("an end within a message", [head(), shown(PLAIN[:9], end=True)]),
        ("an end within a prefix", [head(), shown(PLAIN[:3], end=True)]),
        ("trailers within a message", [head(), TRAILERS]),
        ("a second beginning", [head(), head()]),
        ("a message that is too long", [head(), shown(b"\0\xff\xff\xff\xff")]),
        ("a packed message of no known kind", [head(), shown(framed(b"x", flag=1))]),
        ("no message of inference", [head(), shown(framed(b"\xff"))]),
    ],
)
async def test_what_is_no_stream_of_whole_messages_is_refused(
    front: MakeFront, kind: str, stream: list[bytes]
) -> None:
    one = await streaming(front)
    if kind == "trailers within a message":
        method = one.channel.stream_stream(
            "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
            response_deserializer=wire.ProcessingResponse.FromString,
        )
        call = method()
        for message in (head(), shown(PLAIN[:9]), TRAILERS):
            await call.write(message)
        await call.read()
        answers = [await call.read()]
    else:
        answers = await one.process(*stream)
    assert answers[-1].immediate_response.status.code in (400, 403, 413)
    assert sent_on(answers) == []


async def test_a_server_that_knows_no_streams_gets_none(front: MakeFront) -> None:
    one = await front()
    [answer] = await one.process(head())
    assert answer.immediate_response.status.code == 413


async def test_more_streams_than_may_be_open_are_turned_away_and_leave_room_for_calls(
    front: MakeFront,
) -> None:
    one = await streaming(front, max_streams=2)
    method = one.channel.stream_stream(
        "/envoy.service.ext_proc.v3.ExternalProcessor/Process",
        response_deserializer=wire.ProcessingResponse.FromString,
    )
    open_calls = [method() for _ in range(2)]
    for call in open_calls:
        await call.write(head())
        assert (await call.read()).WhichOneof("response") == "request_headers"
    [answer] = await one.process(head())
    assert answer.immediate_response.status.code == 503
    open_calls[0].cancel()
    for _ in range(100):
        [answer] = await one.process(head())
        if answer.WhichOneof("response") == "request_headers":
            break
    else:
        pytest.fail("a stream that has ended still takes room")


async def test_a_message_whose_check_takes_too_long_ends_the_stream(front: MakeFront) -> None:
    one = await streaming(front, stream_timeout_s=0.2)
    one.post.house.engine.hold()
    answers = await one.process(head(), shown(naming(one.post.house.reference(0).path)))
    one.post.house.engine.let_go()
    assert answers[-1].immediate_response.status.code == 503
    assert sent_on(answers) == []


@given(
    messages=st.lists(st.binary(max_size=40), max_size=8),
    cuts=st.lists(st.integers(1, 30), min_size=1),
)
def test_however_a_stream_is_cut_its_messages_come_out_whole_and_in_order(
    messages: list[bytes], cuts: list[int]
) -> None:
    sent = [framed(one) for one in messages]
    data, frames, got, turn = b"".join(sent), Frames(1000), list[bytes](), 0
    while data:
        size, turn = cuts[turn % len(cuts)], turn + 1
        got += frames.cut("request_body", wire.HttpBody(body=data[:size]))
        data = data[size:]
    got += frames.cut("request_body", wire.HttpBody(end_of_stream=True))
    assert got == sent
    with pytest.raises(RefusedRequestError):
        frames.cut("request_body", wire.HttpBody(body=b"x"))
