"""A real HAProxy guards the example image server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.open_server import Guarded, GuardedComfyUI, GuardedRealtime, guarded
from tests.e2e.proxy_stack import GuardedImageServer, Stack, running_stack

pytestmark = [
    pytest.mark.needs("haproxy"),
    pytest.mark.skipif(
        not Path("/usr/sbin/haproxy").exists(),
        reason="haproxy is missing; scripts/install_test_tools.sh installs it",
    ),
]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack("haproxy/run", LORAGATE="own") as running:
        yield running


class TestHAProxy(GuardedImageServer):
    """See there."""


@pytest.fixture(scope="module")
def comfyui() -> Iterator[Guarded]:
    with guarded("comfyui", "haproxy/run") as running:
        yield running


class TestComfyUIBehindHAProxy(GuardedComfyUI):
    """See there."""


@pytest.fixture(scope="module")
def realtime() -> Iterator[Guarded]:
    with guarded("vllm-omni", "haproxy/run") as running:
        yield running


class TestRealtimeVideoBehindHAProxy(GuardedRealtime):
    """See there."""
