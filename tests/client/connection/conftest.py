"""Places to connect to, the files that a connection may need, and no settings of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from loragate import _channel
from loragate.cli.settings import VARIABLES
from tests.client.places import opened_places, write_files


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of this machine, and no pauses before gRPC tries again."""
    for name in (*VARIABLES.values(), "http_proxy", "https_proxy", "grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_channel, "channel_config", lambda: "{}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates, keys and tokens, right and wrong ones."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, str]]:
    """Targets by what listens there."""
    with opened_places() as targets:
        yield targets
