"""A server that answers clients of Triton, OpenAI and ComfyUI as they expect it, and loads nothing.

It keeps what reached it, so that a test can say that a request arrived as the client sent it.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web
from PIL import Image
from tritonclient.grpc import service_pb2 as triton

from tests.e2e.open_server import OpenServer

VIDEO = {
    "id": "video_1",
    "object": "video",
    "model": "boats",
    "status": "completed",
    "progress": 100,
    "created_at": 1,
    "seconds": "4",
    "size": "720x1280",
}
EVENTS = 3


def picture(side: int = 64) -> bytes:
    """A PNG of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "navy").save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass
class KnownServer(OpenServer):
    """What reached it, as lines and as digests of bodies."""

    bodies: list[tuple[str, str]] = field(default_factory=list)
    seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by a test that has got the first event of a stream; the others wait for it."""

    loop: asyncio.AbstractEventLoop | None = None

    def see(self) -> None:
        """Tells, from a test's thread, that the first event has arrived."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.seen.set)

    async def reply(self, request: web.Request, body: bytes) -> web.StreamResponse:
        """See `OpenServer.reply`."""
        self.loop = asyncio.get_running_loop()
        line = f"{request.method} {request.raw_path}"
        self.bodies.append((line, hashlib.sha256(body).hexdigest()))
        path = request.path.removeprefix("/api")
        if path.endswith("/generate_stream") or (
            path.endswith("completions") and b"stream" in body
        ):
            return await self._stream(request)
        for begin, answer in _ANSWERS.items():
            if path.startswith(begin):
                made = answer(request)
                if isinstance(made, bytes):
                    return web.Response(body=made, content_type="image/png")
                return web.json_response(made)
        return web.json_response({})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, of which the second waits until the first has arrived."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(EVENTS):
            chunk = {
                "id": "1",
                "object": "chat.completion.chunk",
                "created": 1,
                "model": "boats",
                "text_output": str(number),
                "choices": [{"index": 0, "delta": {"content": str(number)}}],
            }
            await response.write(f"data: {json.dumps(chunk)}\n\n".encode())
            if number == 0:
                async with asyncio.timeout(10):
                    await self.seen.wait()
        if request.path.endswith("completions"):
            await response.write(b"data: [DONE]\n\n")
        return response

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Triton's methods."""
        self.came.append(call.method)
        name = call.method.rpartition("/")[2]
        if name == "ModelStreamInfer":
            return grpc.stream_stream_rpc_method_handler(_streamed)
        return grpc.unary_unary_rpc_method_handler(lambda request, _: _GRPC[name](request))


def _streamed(requests: Iterator[bytes], _: object) -> Iterator[bytes]:
    for request in requests:
        response = triton.ModelStreamInferResponse()
        response.infer_response.ParseFromString(_inferred(request))
        yield bytes(response.SerializeToString())


def _inferred(request: bytes) -> bytes:
    asked = triton.ModelInferRequest.FromString(request)
    output = triton.ModelInferResponse.InferOutputTensor(name="picture", datatype="FP32", shape=[1])
    answer = triton.ModelInferResponse(model_name=asked.model_name, outputs=[output])
    answer.raw_output_contents.append(struct.pack("<f", 1.0))
    return bytes(answer.SerializeToString())


_GRPC: dict[str, Callable[[bytes], bytes]] = {
    "ServerLive": lambda _: bytes(triton.ServerLiveResponse(live=True).SerializeToString()),
    "ServerReady": lambda _: bytes(triton.ServerReadyResponse(ready=True).SerializeToString()),
    "RepositoryModelLoad": lambda _: b"",
    "RepositoryModelUnload": lambda _: b"",
    "RepositoryIndex": lambda _: b"",
    "ModelInfer": _inferred,
}


def _pictures(_: web.Request) -> dict[str, Any]:
    return {"created": 1, "data": [{"b64_json": base64.b64encode(picture()).decode()}]}


_ANSWERS: dict[str, Callable[[web.Request], object]] = {
    "/v1/images/": _pictures,
    "/v1/videos/video_1/content": lambda _: picture(),
    "/v1/videos": lambda _: VIDEO,
    "/v2/repository/index": lambda _: [{"name": "m", "version": "1", "state": "READY"}],
    "/v2/models/m/infer": lambda _: {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "picture", "datatype": "FP32", "shape": [1], "data": [1.0]}],
    },
    "/prompt": lambda _: {"prompt_id": "p1", "number": 1, "node_errors": {}},
    "/view": lambda _: picture(),
    "/upload/": lambda _: {"name": "boat.png", "subfolder": "", "type": "input"},
    "/queue": lambda _: {"queue_running": [], "queue_pending": []},
}
