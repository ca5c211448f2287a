"""The script that starts the examples puts into their configurations what the environment says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def stack() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stack", EXAMPLES / "image-server" / "stack.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("proxy", "limits"), [("envoy", 2), ("nginx", 1), ("haproxy", 1)], ids=str)
def test_a_longer_limit_of_a_check_stands_in_every_configuration_that_has_one(
    stack: ModuleType,
    proxy: str,
    limits: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("shipped", "longer"):
        (tmp_path / name).mkdir()
    monkeypatch.delenv("CHECK_TIMEOUT_S", raising=False)
    stack.copy_configuration(EXAMPLES / proxy, tmp_path / "shipped", stack.ports())
    monkeypatch.setenv("CHECK_TIMEOUT_S", "77")
    stack.copy_configuration(EXAMPLES / proxy, tmp_path / "longer", stack.ports())

    def found(name: str, seconds: int) -> int:
        pattern = rf"(?:_timeout |timeout: |TIMEOUT_S = ){seconds}s?\b"
        texts = [path.read_text() for path in (tmp_path / name).iterdir()]
        return sum(len(re.findall(pattern, text)) for text in texts)

    assert (found("shipped", 10), found("shipped", 77)) == (limits, 0)
    assert (found("longer", 10), found("longer", 77)) == (0, limits)
    for path in (tmp_path / "shipped").iterdir():
        assert path.read_text() == (EXAMPLES / proxy / path.name).read_text()
