"""The example image server without a proxy: real adapters, real pictures, no gate."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests.e2e.proxy_stack import EXAMPLES, FORBIDDEN, HARMLESS, free_ports, wait_for_port

SERVER = EXAMPLES / "image-server" / "server.py"


def started(api: str, log: Path) -> Iterator[httpx2.Client]:
    port = free_ports(1)[0]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(SERVER), "--port", str(port), "--lora-api", api],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for_port(process, port)
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def sglang(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    yield from started("sglang", tmp_path_factory.mktemp("sglang") / "log")


@pytest.fixture(scope="module")
def vllm_omni(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    yield from started("vllm-omni", tmp_path_factory.mktemp("vllm-omni") / "log")


@pytest.fixture
def server(sglang: httpx2.Client) -> httpx2.Client:
    sglang.post("/v1/unmerge_lora_weights", json={})
    return sglang


def paint(client: httpx2.Client, **more: Any) -> list[bytes]:
    answer = client.post(
        "/v1/images/generations", json={"prompt": "a picture of a watermelon", **more}
    )
    assert answer.status_code == 200, answer.text
    return [base64.b64decode(one["b64_json"]) for one in answer.json()["data"]]


def test_pictures_are_real_and_follow_prompt_and_seed(server: httpx2.Client) -> None:
    pictures = paint(server, n=2)
    for each in pictures:
        picture = Image.open(io.BytesIO(each))
        picture.load()
        assert (picture.format, picture.size) == ("PNG", (64, 64))
        extrema = picture.convert("L").getextrema()
        assert extrema[0] != extrema[1]
    assert pictures[0] != pictures[1]
    assert paint(server, n=2) == pictures
    assert paint(server, seed=1) != pictures[:1]
    assert paint(server, prompt="a picture of a house") != pictures[:1]


def test_strengths_change_the_picture_and_zero_does_not(server: httpx2.Client) -> None:
    plain = paint(server)
    painted = {}
    for strength in (0.0, 0.5, 1.0):
        body = {"lora_nickname": "w", "lora_path": str(HARMLESS), "strength": strength}
        assert server.post("/v1/set_lora", json=body).status_code == 200
        painted[strength] = paint(server)
    assert painted[0.0] == plain
    assert len({each[0] for each in painted.values()}) == 3


def test_adapters_are_listed_with_their_strengths_and_taken_out(server: httpx2.Client) -> None:
    plain = paint(server)
    body = {
        "lora_nickname": ["a", "b"],
        "lora_path": [str(HARMLESS), str(FORBIDDEN)],
        "strength": [0.5, -1.0],
    }
    assert server.post("/v1/set_lora", json=body).json()["status"] == "ok"
    active = server.get("/v1/list_loras").json()["active"]["unet"]
    assert [(one["nickname"], one["path"], one["strength"]) for one in active] == [
        ("a", str(HARMLESS), 0.5),
        ("b", str(FORBIDDEN), -1.0),
    ]
    assert paint(server) != plain
    server.post("/v1/unmerge_lora_weights", json={})
    assert server.get("/v1/list_loras").json()["active"] == {}
    assert paint(server) == plain


def test_a_nickname_without_a_path_stands_for_what_is_in_memory(server: httpx2.Client) -> None:
    body = {"lora_nickname": "known", "lora_path": str(HARMLESS)}
    server.post("/v1/set_lora", json=body)
    loaded = paint(server)
    server.post("/v1/unmerge_lora_weights", json={})
    assert server.post("/v1/set_lora", json={"lora_nickname": "known"}).status_code == 200
    assert paint(server) == loaded
    answer = server.post("/v1/set_lora", json={"lora_nickname": "unknown"})
    assert answer.status_code == 400
    assert "unknown" in answer.json()["detail"]


def test_a_nickname_with_another_path_is_loaded_anew(server: httpx2.Client) -> None:
    pictures = []
    for path in (HARMLESS, FORBIDDEN):
        server.post("/v1/set_lora", json={"lora_nickname": "same", "lora_path": str(path)})
        pictures.append(paint(server))
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"lora_nickname": "x", "lora_path": "/nowhere.safetensors"}, "not the absolute path"),
        ({"lora_nickname": "x", "lora_path": "relative.safetensors"}, "not the absolute path"),
        ({"lora_nickname": "x", "lora_path": str(SERVER)}, "cannot be loaded"),
        ({"lora_nickname": ["x", "x"], "lora_path": str(HARMLESS)}, "twice"),
        ({"lora_nickname": ["x", "y"], "lora_path": [str(HARMLESS)]}, "1 entries for 2"),
    ],
)
def test_what_cannot_be_loaded_leaves_all_as_it_was(
    server: httpx2.Client, body: dict[str, Any], text: str
) -> None:
    server.post("/v1/set_lora", json={"lora_nickname": "before", "lora_path": str(HARMLESS)})
    before = paint(server)
    answer = server.post("/v1/set_lora", json=body)
    assert answer.status_code == 400
    assert re.search(text, answer.json()["detail"])
    assert paint(server) == before


def test_a_lora_object_is_refused_where_set_lora_is_spoken(server: httpx2.Client) -> None:
    body = {"prompt": "a picture", "lora": {"local_path": str(HARMLESS)}}
    assert server.post("/v1/images/generations", json=body).status_code == 400


def test_a_lora_object_holds_for_its_request_alone(vllm_omni: httpx2.Client) -> None:
    plain = paint(vllm_omni)
    lora = {"name": "w", "local_path": str(HARMLESS), "scale": 0.8}
    assert paint(vllm_omni, lora=lora) != plain
    assert paint(vllm_omni) == plain
    assert vllm_omni.post("/v1/set_lora", content=json.dumps({})).status_code == 404
