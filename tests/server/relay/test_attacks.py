"""Ways around a check, frame by frame: nothing that was not audited reaches the image server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import zlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from tests.server.gate.conftest import settle
from tests.server.relay.conftest import REALTIME, MakeSite, Site, ending

BENIGN = json.dumps({"type": "session.start", "prompt": "a boat"})
MIB = 1 << 20


def frame(data: str | bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    """A frame as a client writes it."""
    body = data.encode() if isinstance(data, str) else data
    return bytes(Frame(opcode, body, fin).serialize(mask=True))


def compressed(data: bytes) -> bytes:
    """The same, with the bit that says so."""
    first, *rest = frame(data)
    return bytes([first | 0x40, *rest])


def fragments(text: str, at: Iterable[int]) -> bytes:
    """One message in several frames."""
    cuts = [0, *at, len(text)]
    parts = [text[one:other] for one, other in pairwise(cuts)]
    return b"".join(
        frame(part, Opcode.CONT if number else Opcode.TEXT, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    )


@dataclass
class Raw:
    """A client that writes whatever bytes it likes."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def ending(self) -> tuple[int, str]:
        """Code and reason of the close frame; what comes before is passed over."""
        async with asyncio.timeout(20):
            while True:
                first, second = await self.reader.readexactly(2)
                length = second & 0x7F
                if length > 125:
                    length = int.from_bytes(
                        await self.reader.readexactly(2 if length == 126 else 8)
                    )
                body = await self.reader.readexactly(length)
                if first & 0x0F == Opcode.CLOSE:
                    return int.from_bytes(body[:2]), body[2:].decode()


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def raw(site: Site, *with_opening: bytes, **headers: str) -> AsyncIterator[Raw]:
    """Opens a WebSocket by hand; what stands behind the opening is sent in the same bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    lines = [
        f"GET {REALTIME} HTTP/1.1",
        "Host: images.example",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + b"".join(with_opening))
    try:
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
        yield Raw(reader, writer, head)
    finally:
        await closed(writer)


async def test_a_start_in_fragments_is_read_as_a_whole(site: MakeSite) -> None:
    one = await site()
    one.forbid()
    evil = one.start()
    inside = evil.index("lora") + 2
    for cuts in ([inside], range(1, len(evil) - 1), [0, 0, inside, inside]):
        async with raw(one, fragments(evil, cuts)) as client:
            code, reason = await client.ending()
        assert (code, reason[:13]) == (1008, "adapter_block")
    assert one.upstream.heard == []


async def test_pings_between_fragments_change_nothing(site: MakeSite) -> None:
    one = await site()
    one.forbid()
    evil = one.start()
    parts = [
        frame(evil[:30], fin=False),
        frame(b"x", Opcode.PING),
        frame(evil[30:60], Opcode.CONT, fin=False),
        frame(b"y", Opcode.PING),
        frame(evil[60:], Opcode.CONT),
    ]
    async with raw(one, b"".join(parts)) as client:
        assert (await client.ending())[0] == 1008
    assert one.upstream.heard == []


async def test_a_fragmented_start_reaches_the_image_server_in_one_piece(site: MakeSite) -> None:
    one = await site()
    text = one.start(prompt="äöü")
    cut = len(text.encode()) - 4
    body = text.encode()
    async with raw(one) as client:
        client.say(frame(body[:cut], fin=False) + frame(body[cut:], Opcode.CONT))
        await settle(lambda: one.upstream.heard == [text])


@pytest.mark.parametrize("parts", [1, 3])
async def test_a_start_in_a_binary_frame_does_not_pass(site: MakeSite, parts: int) -> None:
    one = await site()
    body = one.start().encode()
    step = -(-len(body) // parts)
    cut = [body[at : at + step] for at in range(0, len(body), step)]
    sent = [
        frame(part, Opcode.CONT if number else Opcode.BINARY, fin=number == len(cut) - 1)
        for number, part in enumerate(cut)
    ]
    async with raw(one, *sent) as client:
        code, reason = await client.ending()
    assert (code, reason[:16]) == (1008, "body_unreadable:")
    assert one.upstream.heard == []


async def test_an_evil_start_after_a_benign_one_does_not_pass(site: MakeSite) -> None:
    one = await site()
    one.forbid()
    async with one.opened() as client:
        await client.send(BENIGN)
        assert await client.recv() == BENIGN
        await client.send(one.start())
        assert (await ending(client))[0] == 1008
    assert one.upstream.heard == [BENIGN]


async def test_frames_that_were_sent_before_the_verdict_wait_for_it(site: MakeSite) -> None:
    one = await site()
    one.forbid()
    one.post.house.engine.hold()
    pipelined = [
        frame(BENIGN),
        frame(one.start()),
        frame('{"type": "session.ping"}'),
        frame(BENIGN),
    ]
    async with raw(one, *pipelined) as client:
        await one.post.house.engine.has_started()
        client.say(frame('{"type": "session.ping"}'))
        await asyncio.sleep(0.1)
        assert one.upstream.heard == [BENIGN]
        one.post.house.engine.let_go()
        assert (await client.ending())[0] == 1008
    await settle(lambda: bool(one.upstream.ended))
    assert one.upstream.heard == [BENIGN]


async def test_frames_behind_an_opening_that_is_refused_reach_nobody(site: MakeSite) -> None:
    one = await site()
    one.upstream.status = 403
    async with raw(one, frame(one.start())) as client:
        assert client.head.startswith(b"HTTP/1.1 403 ")
    assert one.upstream.heard == []


@pytest.mark.parametrize(
    "doubled",
    [
        '{"type": "session.start", "lora": null, "lora": {"name": "a", "local_path": "PATH"}}',
        '{"type": "session.start", "lora": {"name": "a", "local_path": "PATH"}, "lora": null}',
        '{"type": "session.ping", "type": "session.start", "lora": {"local_path": "PATH"}}',
        '{"type": "session.start", "lora": {"local_path": "/x", "local_path": "PATH"}}',
        '{"type": "session.start", "lor\\u0061": {"local_path": "PATH"}, "lora": null}',
    ],
)
async def test_names_that_stand_twice_do_not_pass(site: MakeSite, doubled: str) -> None:
    one = await site()
    one.post.house.reference(0)
    async with one.opened() as client:
        await client.send(doubled.replace("PATH", str(one.post.house.root / "0.safetensors")))
        code, reason = await ending(client)
    assert (code, reason[:15]) == (1008, "body_ambiguous:")
    assert one.upstream.heard == []


@pytest.mark.parametrize(
    "hidden",
    [
        {"sampling_params": {"lora": {"name": "a", "local_path": "PATH"}}},
        {"sampling_params": {"extra_params": {"lora_request": {"local_path": "PATH"}}}},
        {"extra_params": {"LoRA": [{"local_path": "PATH"}]}},
        {"lora": {"scale": 0.0, "name": "b", "local_path": "PATH"}, "extra_params": {"lora": {}}},
    ],
)
async def test_an_adapter_in_further_parameters_is_found(
    site: MakeSite, hidden: dict[str, object]
) -> None:
    one = await site()
    one.forbid()
    one.post.house.reference(0)
    text = json.dumps({"type": "session.start", "prompt": "", **hidden})
    for kind in ("session.start", "session.interaction", "session.stop"):
        async with one.opened() as client:
            path = str(one.post.house.root / "0.safetensors")
            await client.send(text.replace("PATH", path).replace("session.start", kind))
            assert (await ending(client))[0] == 1008
    assert one.upstream.heard == []


async def test_compression_is_not_spoken_so_a_bomb_cannot_be_sent(site: MakeSite) -> None:
    one = await site()
    packer = zlib.compressobj(wbits=-15)
    bomb = packer.compress(b" " * 200 * MIB) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < MIB
    offer = {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"}
    async with raw(one, **offer) as client:
        assert b"permessage-deflate" not in client.head
        client.say(compressed(bomb[:-4]))
        assert (await client.ending())[0] == 1002
    async with one.opened(compression="deflate") as plain:
        assert plain.protocol.extensions == []
    assert one.upstream.heard == []


async def test_a_message_over_the_limit_is_refused_in_one_frame_and_in_many(
    site: MakeSite,
) -> None:
    one = await site(intercept={"max_body_bytes": MIB})
    big = json.dumps({"type": "session.start", "prompt": "x" * MIB})
    async with one.opened() as client:
        await client.send(big)
        assert (await ending(client))[0] == 1009
    async with one.opened() as client:
        pieces = [big[at : at + 4096] for at in range(0, len(big), 4096)]
        sending = asyncio.gather(client.send(pieces), return_exceptions=True)
        assert (await ending(client))[0] == 1009
        await sending
    async with raw(one) as peer:
        peer.say(frame("{", fin=False) + frame("", Opcode.CONT, fin=False) * 10_000)
        assert (await peer.ending())[0] == 1009
    assert one.upstream.heard == []
    await settle(lambda: one.ended("broken") == 3)


async def test_a_message_that_is_never_completed_ends_the_connection(site: MakeSite) -> None:
    one = await site(relay={"message_timeout_s": 0.3})
    async with raw(one, frame(BENIGN[:10], fin=False)) as client:
        code, reason = await client.ending()
    assert (code, reason[:10]) == (1008, "peer_slow:")
    assert one.upstream.heard == []
    assert one.ended("slow") == 1


async def test_a_peer_that_answers_no_ping_is_given_up(site: MakeSite) -> None:
    one = await site(relay={"ping_interval_s": 0.1, "message_timeout_s": 0.3})
    async with raw(one):
        await settle(lambda: one.ended("slow") == 1)
    await settle(lambda: bool(one.upstream.ended))


async def _pour(server: ServerConnection) -> None:
    while True:
        await server.send(bytes(4 * MIB))


async def test_a_client_that_takes_nothing_holds_neither_memory_nor_the_image_server(
    site: MakeSite,
) -> None:
    one = await site(relay={"message_timeout_s": 0.5, "close_timeout_s": 0.2})
    async with raw(one):
        await settle(lambda: bool(one.upstream.connections))
        server = one.upstream.connections[0]
        pouring = asyncio.gather(_pour(server), return_exceptions=True)
        await settle(lambda: one.ended("slow") == 1)
        assert isinstance((await pouring)[0], ConnectionClosed)


async def test_a_connection_in_which_nobody_speaks_ends_after_the_time_limit(
    site: MakeSite,
) -> None:
    one = await site(relay={"idle_timeout_s": 0.5, "ping_interval_s": 0.1})
    async with one.opened() as client:
        code, reason = await ending(client)
    assert (code, reason) == (1001, "idle: nothing was said for 0.5 seconds")
    assert one.ended("idle") == 1


async def test_text_that_is_no_utf_8_does_not_pass(site: MakeSite) -> None:
    one = await site()
    body = one.start().encode()
    for wrong in (body[:-1] + b"\xff", b"\xef\xbb\xbf" + body, body[:-20] + b"\xed\xa0\x80"):
        async with raw(one, frame(wrong)) as client:
            assert (await client.ending())[0] in (1007, 1008)
    assert one.upstream.heard == []


@pytest.mark.parametrize(
    ("path", "host"),
    [
        ("/v1/realtime/video;x", "images.example"),
        ("/v1/realtime/video#/ws", "images.example"),
        ("//v1/realtime/video", "images.example"),
        ("/v1/realtime/../realtime/video", "images.example"),
        ("/v1/realtime%2Fvideo", "images.example"),
        ("http://elsewhere/v1/realtime/video", "images.example"),
        (REALTIME, "images.example/v1/other?"),
        (REALTIME, "user:pw@images.example"),
        (REALTIME, "images.example\r\nHost: other"),
    ],
)
async def test_an_opening_that_could_reach_another_route_opens_nothing(
    site: MakeSite, path: str, host: str
) -> None:
    one = await site()
    reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        *("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode() + frame(BENIGN))
    answer = await reader.readline()
    await closed(writer)
    opened = [seen[":path"] for seen in one.upstream.opened]
    # What stays the same route under every reading may open, but only as it was written.
    assert answer.split()[1] in (b"400", b"403") or opened == [path]


async def test_an_opening_that_never_ends_is_cut_off(site: MakeSite) -> None:
    one = await site(relay={"open_timeout_s": 0.2})
    for begun in (b"", f"GET {REALTIME} HTTP/1.1\r\nHost: a\r\n".encode()):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(begun)
        async with asyncio.timeout(10):
            with suppress(ConnectionError):
                assert await reader.read() == b""
        await closed(writer)
    assert one.upstream.opened == []


async def test_plain_requests_reach_nobody(site: MakeSite) -> None:
    one = await site()
    for text in (
        f"POST {REALTIME} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}",
        f"GET {REALTIME} HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /v1/images/generations HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", one.port)
        writer.write(text.encode())
        answer = await reader.read()
        await closed(writer)
        assert not answer or answer.split()[1].startswith(b"4"), text
    assert one.upstream.opened == []
