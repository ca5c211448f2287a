"""Programs that people use, through the proxies of the examples: what is benign passes."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import tritonclient.grpc
import tritonclient.http
from ruamel.yaml import YAML
from tritonclient.utils import InferenceServerException
from websockets.sync.client import connect

from tests.e2e.known_server import EVENTS, KnownServer, picture
from tests.e2e.open_server import guarded
from tests.e2e.proxy_stack import EXAMPLES, FORBIDDEN, HARMLESS, MIB, Stack

SESSION = Path(__file__).with_name("comfyui_session.yaml")
ENVOY = Path(sys.executable).with_name("envoy")
PROXIES = {
    "nginx": Path("/usr/sbin/nginx"),
    "haproxy": Path("/usr/sbin/haproxy"),
    "envoy": ENVOY,
    "envoy --rewrite": ENVOY,
}
Known = tuple[Stack, KnownServer]


def behind(extractor: str, proxy: str) -> Iterator[Known]:
    if not PROXIES[proxy].exists():
        pytest.skip(f"{proxy} is missing; scripts/install_test_tools.sh installs it")
    server = KnownServer()
    name, *more = proxy.split()
    with guarded(extractor, f"{name}/run", *more, server=server) as (stack, _):
        yield stack, server


def each_proxy(*proxies: str) -> Any:
    marks = [
        pytest.param(
            one,
            marks=[
                pytest.mark.needs(one.split()[0]),
                *([pytest.mark.long] if "--rewrite" in one else []),
            ],
        )
        for one in proxies
    ]
    return pytest.fixture(scope="module", params=marks)


@each_proxy(*PROXIES)
def triton(request: pytest.FixtureRequest) -> Iterator[Known]:
    yield from behind("triton", request.param)


@each_proxy(*PROXIES)
def omni(request: pytest.FixtureRequest) -> Iterator[Known]:
    yield from behind("vllm-omni", request.param)


@each_proxy(*PROXIES)
def comfyui(request: pytest.FixtureRequest) -> Iterator[Known]:
    yield from behind("comfyui", request.param)


def address(stack: Stack) -> str:
    return f"127.0.0.1:{stack.ports['PROXY_PORT']}"


def files(path: Path) -> dict[str, bytes]:
    return {"file:1/adapter.safetensors": path.read_bytes()}


def prompt(kind: Any) -> Any:
    tensor = kind.InferInput("prompt", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"a boat"], dtype=object))
    return tensor


def test_triton_over_http_loads_and_infers(triton: Known) -> None:
    stack, server = triton
    with tritonclient.http.InferenceServerClient(address(stack), network_timeout=60) as client:
        assert client.is_server_live()
        client.load_model("m", config='{"backend": "python"}', files=files(HARMLESS))
        assert client.get_model_repository_index()[0]["name"] == "m"
        for compression in (None, "gzip", "deflate"):
            tensor = prompt(tritonclient.http)
            result = client.infer("m", [tensor], request_compression_algorithm=compression)
            assert result.as_numpy("picture") == 1.0
        tensor = tritonclient.http.InferInput("prompt", [1], "BYTES")
        tensor.set_data_from_numpy(np.array([b"a boat"], dtype=object), binary_data=False)
        assert client.infer("m", [tensor], parameters={"steps": 8}).as_numpy("picture") == 1.0
        client.unload_model("m")
        server.bodies.clear()
        with pytest.raises(InferenceServerException, match="jack-o-lantern"):
            client.load_model("m", config="{}", files=files(FORBIDDEN))
    assert server.bodies == []


def test_triton_over_grpc_loads_infers_and_streams_and_each_message_is_read(
    triton: Known,
) -> None:
    stack, server = triton
    if "envoy" not in str(sorted(stack.logs.iterdir())):
        pytest.skip("only Envoy's example has a port for gRPC")
    with tritonclient.grpc.InferenceServerClient(address(stack)) as client:
        assert client.is_server_live()
        client.load_model("m", config='{"backend": "python"}', files=files(HARMLESS))
        result = client.infer("m", [prompt(tritonclient.grpc)], client_timeout=30)
        assert result.as_numpy("picture") == 1.0
        client.unload_model("m")
        server.came.clear()
        with pytest.raises(InferenceServerException, match="jack-o-lantern"):
            client.load_model("m", config="{}", files=files(FORBIDDEN))
        assert server.came == []
        told: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: told.put(error or result))
        for path in (None, HARMLESS):
            given = {} if path is None else {"parameters": {"lora_path": str(path)}}
            client.async_stream_infer("m", [prompt(tritonclient.grpc)], **given)
            assert told.get(timeout=30).as_numpy("picture") == 1.0
        client.stop_stream()
        client.start_stream(lambda result, error: told.put(error or result))
        with suppress(InferenceServerException):  # where it was refused already
            parameters = {"lora_path": str(FORBIDDEN)}
            client.async_stream_infer("m", [prompt(tritonclient.grpc)], parameters=parameters)
        denied = told.get(timeout=30)
        client.stop_stream()
        assert "PERMISSION_DENIED" in str(denied.status())
        assert "jack-o-lantern" in str(denied.message())


def test_events_of_a_server_arrive_one_by_one(triton: Known) -> None:
    stack, server = triton
    server.seen.clear()
    url = f"http://{address(stack)}/v2/models/m/generate_stream"
    with httpx2.stream("POST", url, json={"text_input": "a boat"}, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        events = []
        for line in answer.iter_lines():
            if line.startswith("data: "):
                events.append(json.loads(line.removeprefix("data: "))["text_output"])
                server.see()
    assert events == [str(number) for number in range(EVENTS)]


def test_the_client_of_openai_generates_edits_and_makes_videos(omni: Known) -> None:
    stack, server = omni
    with openai.OpenAI(base_url=f"http://{address(stack)}/v1", api_key="x") as client:
        lora = {"lora": {"name": "melon", "local_path": str(HARMLESS), "scale": 0.8}}
        made = client.images.generate(model="boats", prompt="a boat", extra_body=lora)
        assert made.data is not None
        assert made.data[0].b64_json
        client.images.generate(model="boats", prompt="a boat", n=1, size="512x512")
        image = ("boat.png", picture(), "image/png")
        client.images.edit(model="boats", image=image, mask=image, prompt="a red boat")
        client.images.edit(model="boats", image=[image, image], prompt="two boats")
        with pytest.deprecated_call():  # OpenAI's own videos end; servers keep their routes
            video = client.videos.create(model="boats", prompt="a boat", input_reference=image)
            assert client.videos.retrieve(video.id).status == "completed"
            assert client.videos.download_content(video.id).read() == picture()
            client.videos.delete(video.id)
        server.bodies.clear()
        evil = {"lora": {"name": "lantern", "local_path": str(FORBIDDEN)}}
        with pytest.raises(openai.PermissionDeniedError, match="jack-o-lantern"):
            client.images.generate(model="boats", prompt="a boat", extra_body=evil)
        told = {"lora": json.dumps(evil["lora"])}
        with (
            pytest.deprecated_call(),
            pytest.raises(openai.PermissionDeniedError, match="jack-o-lantern"),
        ):
            client.videos.create(model="boats", prompt="a boat", extra_body=told)
    assert server.bodies == []


def test_the_client_of_openai_streams_word_by_word(omni: Known) -> None:
    stack, server = omni
    server.seen.clear()
    words = []
    with openai.OpenAI(base_url=f"http://{address(stack)}/v1", api_key="x") as client:
        message = {"role": "user", "content": "a boat"}
        stream = client.chat.completions.create(
            model="boats", messages=[message], stream=True, timeout=30
        )
        for chunk in stream:
            words.append(chunk.choices[0].delta.content)
            server.see()
    assert words == [str(number) for number in range(EVENTS)]


def test_a_session_of_comfyuis_page_passes_and_arrives_as_it_was_sent(comfyui: Known) -> None:
    stack, server = comfyui
    server.came.clear()
    server.bodies.clear()
    steps = YAML(typ="safe", pure=True).load(SESSION.read_text())
    sent = []
    url = f"ws://{address(stack)}/ws?clientId=0af1"
    base = f"http://{address(stack)}"
    headers = {"Origin": base, "Comfy-User": "harbour"}
    with (
        connect(url, proxy=None, origin=base) as socket,
        httpx2.Client(base_url=base, headers=headers, timeout=60) as client,
    ):
        assert json.loads(socket.recv(timeout=10))["type"] == "status"
        for step in steps:
            if "socket" in step:
                socket.send(json.dumps(step["socket"]))
                assert json.loads(str(socket.recv(timeout=10)).removeprefix("heard "))
                continue
            request = asked(client, step)
            answer = client.send(request)
            assert answer.status_code == 200, (step, answer.text)
            line = f"{request.method} {request.url.raw_path.decode()}"
            sent.append((line, hashlib.sha256(request.read()).hexdigest()))
            if " /api/view?" in line:
                assert answer.content == picture()
    assert server.bodies == sent
    assert len(sent) > 40


def asked(client: httpx2.Client, step: Any) -> httpx2.Request:
    """A step of the session as the page's browser sends it."""
    given = {"request": step} if isinstance(step, str) else step
    method, path = given["request"].split(" ")
    if "form" not in given:
        return client.build_request(
            method, path, **({"json": given["json"]} if "json" in given else {})
        )
    parts = [
        (one["name"], (one["file_name"], picture(), "image/png"))
        if "file_name" in one
        else (one["name"], (None, one["text"].encode()))
        for one in given["form"]
    ]
    return client.build_request(method, path, files=parts)


def test_twenty_megabytes_of_a_picture_pass(omni: Known) -> None:
    stack, server = omni
    if shipped_limit() < 21 * MIB:
        pytest.skip(f"the examples take bodies of {shipped_limit()} bytes")
    server.bodies.clear()
    image = ("boat.png", picture() + os.urandom(20 * MIB), "image/png")
    with openai.OpenAI(base_url=f"http://{address(stack)}/v1", api_key="x") as client:
        made = client.images.edit(model="boats", image=image, prompt="a red boat")
    assert made.data is not None
    assert len(server.bodies) == 1


def shipped_limit() -> int:
    """The largest body that nginx's example lets through; the others are set alike."""
    text = (EXAMPLES / "nginx" / "nginx.conf").read_text()
    found = re.search(r"client_max_body_size (\d+)m;", text)
    assert found is not None
    return int(found[1]) * MIB
