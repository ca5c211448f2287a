"""A real Envoy guards the example image server, with ext_authz and with ext_proc."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from testkit import comfyui_templates as templates
from testkit.lanes import daily
from tests.e2e.open_server import (
    Guarded,
    GuardedComfyUI,
    GuardedRealtime,
    guarded,
)
from tests.e2e.open_triton import GuardedTriton
from tests.e2e.proxy_stack import (
    FORBIDDEN,
    HARMLESS,
    GuardedImageServer,
    Stack,
    running_stack,
)

needs_templates = pytest.mark.skipif(
    not templates.installed(),
    reason="comfyui-workflow-templates-json is missing; scripts/setup.sh dev installs it",
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
    with running_stack("envoy/run", "--rewrite", ADAPTERS=str(folder), LORAGATE="own") as running:
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

    @needs_templates
    @pytest.mark.parametrize("every", daily(8, of=(8, 1)))
    def test_comfyuis_templates_pass_or_are_read(self, comfyui: Guarded, every: int) -> None:
        play(comfyui, templates.names()[::every])


def play(comfyui: Guarded, names: Sequence[str]) -> None:
    """Sends templates: those without a LoRA reach the server, the others are told where it is.

    There is no file for any of the names, so that nothing with a LoRA can pass.
    """
    stack, server = comfyui
    server.came.clear()
    passing = [name for name in names if not templates.loras(name)]
    for name in names:
        answer = stack.ask("POST", "/prompt", templates.prompt(name))
        if name in passing:
            assert answer.status == 200, (name, answer.body)
        else:
            assert answer.status == 403, (name, answer.body)
            assert b"It is named at /prompt/" in answer.body
            assert b"(LoraLoader" in answer.body
    print(f"{len(passing)} templates passed, {len(names) - len(passing)} have a LoRA")
    assert server.came == ["POST /prompt"] * len(passing)


class TestTritonBehindEnvoy(GuardedTriton):
    """Asked by both services."""
