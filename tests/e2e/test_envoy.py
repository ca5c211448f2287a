"""A real Envoy guards the example image server, with ext_authz and with ext_proc."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.open_server import (
    Guarded,
    GuardedComfyUI,
    GuardedRealtime,
    GuardedTriton,
    guarded,
)
from tests.e2e.proxy_stack import (
    FORBIDDEN,
    HARMLESS,
    MIB,
    GuardedImageServer,
    Stack,
    running_stack,
)

pytestmark = [
    pytest.mark.needs("envoy"),
    pytest.mark.skipif(
        not Path(sys.executable).with_name("envoy").exists(),
        reason="envoy is missing; scripts/setup.sh dev installs it",
    ),
]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack("envoy/run") as running:
        yield running


class TestEnvoy(GuardedImageServer):
    """Asked by ext_authz."""


@pytest.fixture(scope="module")
def rewriting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Path]]:
    """The stack that loads audited copies, and the folder from which adapters may come."""
    folder = tmp_path_factory.mktemp("adapters")
    with running_stack("envoy/run", "--rewrite", ADAPTERS=str(folder)) as running:
        yield running, folder


def test_what_is_loaded_is_the_copy_that_was_audited(rewriting: tuple[Stack, Path]) -> None:
    stack, folder = rewriting
    path = Path(shutil.copy(HARMLESS, folder / "style.safetensors"))
    assert stack.load(path).status == 200
    (loaded,) = stack.in_memory()
    assert Path(loaded).is_relative_to(stack.logs / "state")
    shutil.copy(FORBIDDEN, path)
    assert Path(loaded).read_bytes() == HARMLESS.read_bytes()
    assert len(stack.paint()) > 100


def test_a_forbidden_file_under_a_name_that_was_allowed_is_refused(
    rewriting: tuple[Stack, Path],
) -> None:
    stack, folder = rewriting
    before = stack.in_memory()
    path = Path(shutil.copy(FORBIDDEN, folder / "style.safetensors"))
    answer = stack.load(path)
    assert answer.status == 403
    assert b"jack-o-lantern" in answer.body
    assert answer.headers["x-loragate-decision-id"]
    assert stack.in_memory() == before


def test_a_body_over_the_limit_is_refused_where_bodies_are_rewritten(
    rewriting: tuple[Stack, Path],
) -> None:
    body = {"lora_nickname": "x" * 2 * MIB, "lora_path": str(FORBIDDEN)}
    assert rewriting[0].ask("POST", "/v1/set_lora", body).status == 413


def test_nothing_passes_where_bodies_are_rewritten_while_loragate_is_away(
    rewriting: tuple[Stack, Path],
) -> None:
    stack, folder = rewriting
    before = stack.in_memory()
    os.kill(stack.pids["loragate"], signal.SIGKILL)
    time.sleep(0.2)
    path = Path(shutil.copy(HARMLESS, folder / "late.safetensors"))
    assert stack.load(path, "late").status == 503
    assert stack.in_memory() == before


@pytest.fixture(scope="module", params=[(), ("--rewrite",)], ids=["ext_authz", "ext_proc"])
def comfyui(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    with guarded("comfyui", "envoy/run", *request.param) as running:
        yield running


@pytest.fixture(scope="module", params=[(), ("--rewrite",)], ids=["ext_authz", "ext_proc"])
def triton(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    with guarded("triton", "envoy/run", *request.param) as running:
        yield running


@pytest.fixture(scope="module", params=[(), ("--rewrite",)], ids=["ext_authz", "ext_proc"])
def realtime(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    with guarded("vllm-omni", "envoy/run", *request.param) as running:
        yield running


class TestRealtimeVideoBehindEnvoy(GuardedRealtime):
    """Asked by both services."""


class TestComfyUIBehindEnvoy(GuardedComfyUI):
    """Asked by both services."""


class TestTritonBehindEnvoy(GuardedTriton):
    """Asked by both services."""
