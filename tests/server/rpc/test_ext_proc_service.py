from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loragate_server.audit.evidence import Evidence
from loragate_server.audit.uses import Member
from loragate_server.progress import Leash
from loragate_server.rpc.envoy import ext_proc_pb2 as wire
from tests.server.rpc.front import MakeFront, files, front, golden, house, post, tiny, until

__all__ = ["files", "front", "house", "post", "tiny", "until"]

ROUNDS = int(os.environ.get("LORAGATE_RACE_ROUNDS", "1000"))

SWAP = """
import os, sys
target, harmless, forbidden = sys.argv[1:]
print("swapping", flush=True)
turn = 0
while True:
    turn += 1
    source = forbidden if turn % 2 else harmless
    if turn % 50 == 0:  # in place, so that a reader may see half of each
        with open(source, "rb") as one, open(target, "r+b") as other:
            other.write(one.read())
    else:
        with open(source, "rb") as one, open(target + ".next", "wb") as other:
            other.write(one.read())
        os.replace(target + ".next", target)
"""


def set_headers(mutation: wire.HeaderMutation) -> dict[str, str]:
    return {one.header.key: one.header.raw_value.decode() for one in mutation.set_headers}


async def test_the_body_is_made_to_name_the_audited_copy(front: MakeFront) -> None:
    one = await front()
    headers, body = await one.process("proc_headers", "proc_body")
    removed = headers.request_headers.response.header_mutation.remove_headers
    assert "x-loragate-verdict" in removed
    common = body.request_body.response
    document = json.loads(common.body_mutation.body)
    copy = Path(document["lora"])
    assert hashlib.sha256(copy.read_bytes()).hexdigest() == copy.stem
    assert document["strength"] == 1.0
    told = set_headers(common.header_mutation)
    assert told["content-length"] == str(len(common.body_mutation.body))
    assert told["x-loragate-verdict"] == "ALLOW"
    assert body.dynamic_metadata["loragate"]["decision_id"] == told["x-loragate-decision-id"]


async def test_a_forbidden_adapter_is_answered_at_once(front: MakeFront) -> None:
    one = await front()
    one.post.house.engine.score = 9.0
    _, answer = await one.process("proc_headers", "proc_body")
    immediate = answer.immediate_response
    assert immediate.status.code == 403
    assert json.loads(immediate.body)["code"] == "adapter_block"
    assert set_headers(immediate.headers)["content-type"] == "application/json"


async def test_a_request_without_adapter_goes_on_unchanged(front: MakeFront) -> None:
    one = await front()
    [answer] = await one.process("proc_headers_get")
    assert answer.WhichOneof("response") == "request_headers"
    assert not answer.request_headers.response.HasField("body_mutation")


async def test_what_follows_an_allowed_request_is_passed_on(front: MakeFront) -> None:
    one = await front()
    later = wire.ProcessingRequest(response_headers=wire.HttpHeaders(end_of_stream=True))
    answers = await one.process("proc_headers_get", later.SerializeToString())
    assert answers[1].WhichOneof("response") == "response_headers"


async def test_streams_that_cannot_be_judged_are_answered_with_a_denial(front: MakeFront) -> None:
    one = await front()
    headers = wire.ProcessingRequest.FromString(golden("proc_headers"))
    headers.ClearField("protocol_config")
    part = wire.ProcessingRequest(request_body=wire.HttpBody(body=b"{", end_of_stream=False))
    trailers = wire.ProcessingRequest(request_trailers=wire.HttpTrailers())
    streams: list[list[bytes | str]] = [
        ["proc_headers_streamed"],
        [headers.SerializeToString()],
        ["proc_body"],
        [b""],
        ["proc_headers", part.SerializeToString()],
        ["proc_headers", trailers.SerializeToString()],
        ["proc_headers", "proc_headers"],
        ["proc_headers_get", "proc_body"],
    ]
    for stream in streams:
        answers = await one.process(*stream)
        assert answers[-1].immediate_response.status.code == 413, stream
    assert one.post.told.counts["plain", "refused"] == len(streams)


def head(method: str, path: str) -> bytes:
    """The headers of a request that does not end with them."""
    message = wire.ProcessingRequest.FromString(golden("proc_headers"))
    for one in message.request_headers.headers.headers:
        if one.key in (":method", ":path"):
            one.raw_value = (method if one.key == ":method" else path).encode()
    return message.SerializeToString()


async def test_a_request_without_end_is_answered_by_its_headers_alone(front: MakeFront) -> None:
    one = await front()
    [answer] = await one.process(head("POST", "/endless"))
    assert answer.immediate_response.status.code == 403
    [answer] = await one.process(head("GET", "/socket"))
    assert answer.WhichOneof("response") == "request_headers"
    assert answer.HasField("mode_override")
    assert answer.mode_override.request_body_mode == wire.NONE
    assert answer.mode_override.response_header_mode == wire.ProcessingMode.SKIP
    removed = answer.request_headers.response.header_mutation.remove_headers
    assert "x-loragate-verdict" in removed


async def test_a_body_that_is_shown_although_nobody_asked_for_it_passes_unread(
    front: MakeFront,
) -> None:
    one = await front()
    answers = await one.process(head("GET", "/socket"), "proc_body")
    assert answers[1].WhichOneof("response") == "request_body"
    assert not answers[1].request_body.response.HasField("body_mutation")
    assert one.post.told.counts == {("plain", "allow_no_adapter"): 1}


async def test_a_body_that_is_not_as_long_as_declared_is_denied(front: MakeFront) -> None:
    short = wire.ProcessingRequest(request_body=wire.HttpBody(body=b"{}", end_of_stream=True))
    answers = await (await front()).process("proc_headers", short.SerializeToString())
    assert answers[-1].immediate_response.status.code == 413


async def test_a_stream_that_ends_early_gets_no_leave_to_go_on(front: MakeFront) -> None:
    one = await front()
    [answer] = await one.process("proc_headers")
    assert answer.WhichOneof("response") == "request_headers"
    assert one.post.told.counts == {}
    assert await one.process() == []


async def test_a_file_that_is_swapped_all_the_time_is_never_loaded_unaudited(
    front: MakeFront,
) -> None:
    one = await front()
    home = one.post.house
    harmless, forbidden = home.files(0), home.files(1)
    allowed = hashlib.sha256(harmless).hexdigest()
    judge = home.engine.audit

    def by_content(
        members: Sequence[Member],
        leash: Leash,
        concept_ids: Sequence[str] = (),
        *,
        screen_miss_rate: float = 0.01,
    ) -> Evidence:
        known = members[0].readings[0].sha256 == allowed
        home.engine.score = 0.0 if known else 9.0
        return judge(members, leash, concept_ids)

    home.engine.audit = by_content  # type: ignore[method-assign]
    seen: Counter[int] = Counter()
    with swapping(home.root / "0.safetensors", harmless, forbidden):
        for _ in range(ROUNDS):
            answer = (await one.process("proc_headers", "proc_body"))[-1]
            if answer.WhichOneof("response") == "immediate_response":
                seen[answer.immediate_response.status.code] += 1
                continue
            seen[200] += 1
            copy = Path(json.loads(answer.request_body.response.body_mutation.body)["lora"])
            assert copy.stem == allowed
            assert copy.read_bytes() == harmless
    print(f"{ROUNDS} loads: {dict(seen)}")
    assert seen[200] > 0
    assert seen[403] > 0


@contextmanager
def swapping(target: Path, harmless: bytes, forbidden: bytes) -> Iterator[None]:
    """Another process swaps the file for as long as the block lasts."""
    sources = target.parent.parent / "harmless.bin", target.parent.parent / "forbidden.bin"
    for source, content in zip(sources, (harmless, forbidden), strict=True):
        source.write_bytes(content)
    process = subprocess.Popen(
        [sys.executable, "-c", SWAP, str(target), *map(str, sources)],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "swapping\n"
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
