"""A real server, asked about requests that would hide a forbidden LoRA behind a decoy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from testkit.lanes import daily
from testkit.servers import forked_server
from tests.e2e.conftest import ADAPTERS
from tests.server.intercept.bodies import ROUTES
from tests.server.intercept.decoys import DECOYS

FORBIDDEN, HARMLESS = "learned-bomb", "harmless-watermelon"
KINDS = (
    "a loader for another sampler",
    "a name with a folder",
    "a negative prompt",
    "a nested lora",
    "a reference deeper down",
    "a second target",
    "a strength that no model reads",
    "an unknown field",
    "an unknown input",
    "an unlinked loader",
    "the parameters of an input",
)
"""One for each server and way; the others are proven where requests are read."""
DAILY = ("an unlinked loader", "a name with a folder", "the parameters of an input")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("loras")
    for name in (FORBIDDEN, HARMLESS):
        shutil.copy(ADAPTERS / f"{name}.safetensors", made)
    return made


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Iterator[httpx2.Client]:
    extractors: dict[str, Any] = {
        kind: {"kind": kind} for kind in ("vllm_omni", "cog", "kserve", "sglang")
    }
    for kind in ("comfyui", "a1111"):
        extractors[kind] = {"kind": kind, "settings": {"lora_folder": str(folder)}}
    rule = {"path": "/generate", "reference": "$..lora", "strength": "$..scale"}
    extractors["declarative"] = {"kind": "declarative", "settings": {"rules": [rule]}}
    settings = {
        "LORAGATE_INTAKE__ROOTS": json.dumps([str(folder)]),
        "LORAGATE_INTERCEPT__HTTP": "true",
        "LORAGATE_INTERCEPT__HTTP_TIMEOUT_S": "120",
        "LORAGATE_INTERCEPT__EXTRACTORS": json.dumps(extractors),
    }
    with (
        forked_server(tmp_path_factory.mktemp("state"), settings) as process,
        httpx2.Client(base_url=f"http://{process.http}", timeout=120) as client,
    ):
        yield client


def ask(door: httpx2.Client, folder: Path, kind: str, lora: str) -> httpx2.Response:
    server, body = DECOYS[kind]
    text = json.dumps(body).replace("/loras/bomb", f"{folder}/{lora}")
    text = text.replace("lora:bomb", f"lora:{lora}").replace("LoRA:bomb", f"LoRA:{lora}")
    text = text.replace('"bomb', f'"{lora}')
    headers = {
        "x-original-method": "POST",
        "x-original-uri": ROUTES[server],
        "content-type": "application/json",
    }
    return door.post(f"/v1/check/{server}", content=text.encode(), headers=headers)


@pytest.mark.parametrize("kind", daily(*DAILY, of=KINDS))
def test_a_decoy_that_is_never_applied_does_not_let_a_forbidden_lora_through(
    door: httpx2.Client, folder: Path, kind: str
) -> None:
    answer = ask(door, folder, kind, FORBIDDEN)
    assert answer.status_code == 403, answer.text
    assert answer.headers["x-loragate-verdict"] == "BLOCK"
    assert "bomb" in answer.text


@pytest.mark.parametrize("kind", daily(*DAILY, of=KINDS))
def test_the_same_requests_pass_with_a_harmless_lora(
    door: httpx2.Client, folder: Path, kind: str
) -> None:
    answer = ask(door, folder, kind, HARMLESS)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-loragate-verdict"] == "ALLOW"
