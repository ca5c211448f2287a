"""Paths that a server may take from its disk or from the hub, and files of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from loragate_server.adapter.reference import AdapterReference
from loragate_server.intercept.extraction import RefusalCode
from loragate_server.intercept.reading.references import looks_like_weights
from loragate_server.intercept.request import HttpRequest
from tests.server.intercept.bodies import extractor, post
from tests.server.intercept.verdicts import found, refusal

PICTURES = "/v1/images/generations"


def naming(server: str, path: Any) -> HttpRequest:
    if server == "sglang":
        return post("/v1/set_lora", {"lora_nickname": "x", "lora_path": path})
    return post(PICTURES, {"prompt": "a", "lora": {"name": "x", "path": path}})


@pytest.mark.parametrize("server", ["sglang", "vllm_omni"])
@pytest.mark.parametrize(
    "path", ["loras/evil.safetensors", "evil.safetensors", "evil", "a.b/c.bin"]
)
def test_a_relative_path_that_may_be_a_repository_is_refused(server: str, path: str) -> None:
    assert refusal(server, naming(server, path)) == RefusalCode.ADAPTER_UNNAMED
    assert found(server, naming(server, path), hub_ids=False) == [path]


@pytest.mark.parametrize("server", ["sglang", "vllm_omni"])
@pytest.mark.parametrize(
    "path", ["/srv/evil.safetensors", "./evil.safetensors", "a/b/c.safetensors"]
)
def test_a_path_that_is_no_name_of_a_repository_is_a_path(server: str, path: str) -> None:
    assert found(server, naming(server, path)) == [path]


def asked(path: Path | str) -> AdapterReference:
    (adapter,) = extractor("vllm_omni").extract(naming("vllm_omni", str(path))).adapters
    return adapter


def test_of_a_folder_with_a_configuration_the_weights_of_pefts_name_are_audited(
    tmp_path: Path,
) -> None:
    (tmp_path / "good.safetensors").touch()
    assert asked(tmp_path).weight_name is None  # the one file, as the server takes it
    (tmp_path / "adapter_config.json").touch()
    assert asked(tmp_path).weight_name == "adapter_model.safetensors"
    assert asked(tmp_path / "good.safetensors").weight_name is None


def test_of_a_repository_the_weights_of_pefts_name_are_audited() -> None:
    assert asked("studio/ink").weight_name == "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("https://files.example.org/ink.safetensors?download=1", True),
        ("https://files.example.org/ink.safetensors#top", True),
        ("https://files.example.org/ink?as=a.safetensors", False),
        ("/loras/what?.safetensors", True),
        ("/loras/ink.safetensors?", False),
        (" INK.SafeTensors ", True),
        ("urn:air:sdxl:lora:civitai:1@2", True),
        ("https://civitai.com/api/download/models/1", True),
        ("a harbour", False),
        ("x" * 5000 + ".safetensors", False),
    ],
)
def test_what_looks_like_a_file_of_weights(text: str, weights: bool) -> None:
    assert looks_like_weights(text) is weights
