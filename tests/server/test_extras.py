"""What is not installed: the server says what to install, or does without."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from loragate import AuditClient, Verdict
from loragate_server import __version__
from loragate_server.app.preflight import require
from loragate_server.config.intake import IntakeSection
from loragate_server.config.schema import Config, StartError
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.connect import parse_url
from loragate_server.testing import server_process

HARMLESS = Path(__file__).parents[2] / "examples" / "adapters" / "harmless-watermelon.safetensors"
WITHOUT_TRITON = """
import sys
from importlib.machinery import PathFinder


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            return None
        return PathFinder.find_spec(name, path, target)


if __name__ == "__main__":
    sys.meta_path[sys.meta_path.index(PathFinder)] = Without
    from loragate_server.__main__ import main

    main()
"""
"""The server on a machine for which there is no Triton."""


@pytest.fixture
def without_triton(tmp_path: Path) -> tuple[str]:
    (script := tmp_path / "without_triton.py").write_text(WITHOUT_TRITON)
    return (str(script),)


def test_a_server_without_triton_audits_a_file_on_the_cpu(
    tmp_path: Path, without_triton: tuple[str]
) -> None:
    with (
        server_process(tmp_path, program=without_triton) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        assert client.audit_file(HARMLESS).verdict is Verdict.ALLOW


def test_a_server_without_triton_says_so_where_it_is_asked_for(
    tmp_path: Path, without_triton: tuple[str]
) -> None:
    settings = {"LORAGATE_KERNEL_BACKEND": "triton"}
    wanted = r"kernel_backend: .* needs the package triton.* Ask for 'reference'"
    with (
        pytest.raises(RuntimeError, match=wanted) as caught,
        server_process(tmp_path, settings, program=without_triton),
    ):
        raise AssertionError("it started")
    assert "Traceback" not in str(caught.value)


def test_postgresql_without_its_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(NoDecisionError) as caught:
        parse_url("postgresql://loragate:secret@db/loragate")
    assert caught.value.reason is ErrorReason.DATABASE_UNAVAILABLE
    assert "the extra `postgres`" in str(caught.value)
    assert caught.value.remedy == "pip install 'loragate-server[postgres]'"
    assert "secret" not in str(caught.value)
    assert parse_url("sqlite:////tmp/a.sqlite3").drivername == "sqlite"


def test_s3_without_its_library_names_the_extra_when_the_server_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = importlib.util.find_spec

    def without_s3(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "s3fs" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_s3)
    require(Config())
    config = Config(intake=IntakeSection(enabled_schemes=frozenset({"s3"})))
    with pytest.raises(StartError, match=r"loragate-server\[s3\]"):
        require(config)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loragate_server", "--version"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == f"loragate-server {__version__}\n"
