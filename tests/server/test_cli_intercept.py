"""`loragate-server intercept explain`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from loragate_server.cli.command import application

CONFIG = """
intercept:
  extractors:
    comfyui: {kind: comfyui, settings: {lora_folder: /loras}}
    sglang: {kind: sglang, settings: {unknown_routes: warn}}
    omni: {kind: vllm_omni}
  default_extractor: comfyui
"""
GRAPH = (
    '{"prompt": {"1": {"class_type": "LoraLoaderModelOnly", "inputs": '
    '{"lora_name": "ink.safetensors", "strength_model": 0.5, "model": ["2", 0]}}}}'
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path / "state"))
    (file := tmp_path / "loragate.yaml").write_text(CONFIG)
    return file


def explain(config: Path, request: str, *more: str) -> Result:
    command = ["intercept", "explain", "--config", str(config), *more]
    return CliRunner().invoke(application, command, input=request)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_request_with_a_lora_is_shown_with_its_file_and_strengths(config: Path, end: str) -> None:
    request = end.join(["POST /api/prompt HTTP/1.1", "Host: images", "", GRAPH])
    result = explain(config, request)
    assert result.exit_code == 0
    assert "route: /prompt, by which adapters can come in" in result.output
    assert "asks about 1 adapters" in result.output
    told = "/prompt/1/inputs/lora_name: /loras/ink.safetensors at 0.5 (text encoder 0)"
    assert told in result.output


def test_a_refusal_is_shown_with_its_reason_and_remedy(config: Path) -> None:
    result = explain(config, "POST /customnode/install HTTP/1.1\n\n{}")
    assert result.exit_code == 1
    assert "route: one in no list" in result.output
    assert "refused: route_unlisted" in result.output
    assert "remedy: " in result.output


@pytest.mark.parametrize(
    ("line", "extractor", "expected"),
    [
        ("GET /history", "comfyui", "GET only reads"),
        ("POST /queue", "comfyui", "one that loads nothing"),
        ("POST /anything", "sglang", "passes: unknown_routes is warn"),
    ],
)
def test_what_passes_is_shown_with_the_reason(
    config: Path, line: str, extractor: str, expected: str
) -> None:
    result = explain(
        config, f"{line} HTTP/1.1\nContent-Length: 2\n\n{{}}\n", "--extractor", extractor
    )
    assert result.exit_code == 0
    assert expected in result.output


def test_a_stored_upgrade_is_explained_too(config: Path) -> None:
    result = explain(config, "GET /other HTTP/1.1\nUpgrade: websocket\nConnection: upgrade\n\n")
    assert result.exit_code == 1
    assert "an upgrade that is not known" in result.output


@pytest.mark.parametrize(
    ("request_", "extractor", "message"),
    [
        ("hello", "", "does not begin as"),
        ("GET / HTTP/1.1\nnocolon\n\n", "", "has no colon"),
        ("GET / HTTP/1.1\n\n", "comfy", "there is no extractor 'comfy'"),
    ],
)
def test_what_is_no_request_or_has_no_extractor_is_an_error(
    config: Path, request_: str, extractor: str, message: str
) -> None:
    result = explain(config, request_, *(("--extractor", extractor) if extractor else ()))
    assert result.exit_code == 3
    assert message in result.output


OPENING = """GET /v1/realtime/video HTTP/1.1
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==

"""


def test_a_message_in_a_websocket_is_shown_as_the_relay_would_read_it(
    config: Path, tmp_path: Path
) -> None:
    message = tmp_path / "start.json"
    lora = '{"name": "ink", "local_path": "/loras/ink.safetensors"}'
    message.write_text(f'{{"type": "session.start", "lora": {lora}}}')
    result = explain(config, OPENING, "--extractor", "omni", "--message", str(message))
    assert result.exit_code == 0
    assert "route: a message in a WebSocket that is read" in result.output
    assert "/lora/local_path: /loras/ink.safetensors at 1" in result.output
    message.write_bytes(b"\xff")
    result = explain(config, OPENING, "--extractor", "omni", "--message", str(message))
    assert result.exit_code == 1
    assert "the message is binary" in result.output.lower()


def test_an_opening_that_only_a_relay_reads_says_so(config: Path) -> None:
    result = explain(config, OPENING, "--extractor", "omni")
    assert result.exit_code == 1
    assert "Have the proxy send it to the relay of intercept.relays.omni." in result.output


@pytest.mark.parametrize("length", ["\xb2", "9" * 5000, "-1"])
def test_a_length_that_is_no_number_is_explained_as_a_body_that_is_not_whole(
    config: Path, length: str
) -> None:
    result = explain(config, f"POST /generate HTTP/1.1\nContent-Length: {length}\n\n{{}}")
    assert result.exit_code in (0, 1), result.output
    assert "request: POST /generate, 2 bytes of body" in result.output
