"""Opens logs and recorders that have devices, and closes them."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loragate_server.config.devices import AuditDevice
from loragate_server.record.devices.devices import Devices
from loragate_server.record.recorder import Recorder
from tests.server.devices.logs import Logged


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Callable[..., Logged]]:
    """Opens a log with these devices; the one before is closed, as when a server starts anew."""
    opened: list[Logged] = []

    def open_one(*settings: AuditDevice, **options: Any) -> Logged:
        for one in opened:
            one.close()
        log = tmp_path / "state" / "decisions.jsonl"
        log.parent.mkdir(exist_ok=True)
        opened.append(Logged(log, log.parent / "devices", settings, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Callable[..., Recorder]]:
    """Recorders with devices, closed after the test."""
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        def open_one(*settings: AuditDevice) -> Recorder:
            folder = tmp_path / f"replica{next(numbers)}"
            folder.mkdir()
            log = folder / "decisions.jsonl"
            recorder = Recorder(
                f"sqlite:///{folder}/audits.db",
                log,
                devices=Devices(settings, folder / "devices", log),
            )
            stack.callback(recorder.close)
            return recorder

        yield open_one
