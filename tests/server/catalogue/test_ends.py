"""How a scan ends, for whoever started it: by an exit code that means one thing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loragate_server.app import cataloguing
from loragate_server.catalogue.listing import SourceError
from loragate_server.catalogue.scan import Outcome
from loragate_server.cli.command import application
from loragate_server.config.sources import ignored_environment

Run = Callable[..., Result]


class OutOfMemoryError(Exception):
    """As Ray's is called, which is no MemoryError."""


@pytest.fixture
def ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command over an empty folder, with a scan that ends so."""
    (tmp_path / "source").mkdir()
    for name in ignored_environment():
        monkeypatch.delenv(name)
    monkeypatch.setenv("LORAGATE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(end: Exception | Outcome, *options: str) -> Result:
        async def scan(*_: Any) -> Outcome:
            if isinstance(end, Exception):
                raise end
            return end

        monkeypatch.setattr(cataloguing, "scan", scan)
        words = ["catalogue", "scan", str(tmp_path / "source")]
        return CliRunner().invoke(application, [*words, *options])

    return run


@pytest.mark.parametrize(
    ("refused", "left", "options", "code"),
    [
        (0, 0, (), 0),
        (1, 0, (), 1),
        (1, 0, ("--accept-refused",), 0),
        (1, 1, (), 3),
        (1, 1, ("--accept-refused",), 3),
    ],
)
def test_the_code_tells_what_was_refused_from_what_is_left(
    ending: Run, tmp_path: Path, refused: int, left: int, options: tuple[str, ...], code: int
) -> None:
    ended = ending(Outcome(tmp_path / "out", 3, refused, left), *options)
    assert ended.exit_code == code, ended.output
    assert f"3 files, {refused} refused, {left} left" in ended.output


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (RuntimeError("an actor died\nwith a long tale"), "RuntimeError: an actor died. Again"),
        (OutOfMemoryError("killed"), "memory"),
        (SourceError("It cannot be listed."), "It cannot be listed."),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_a_scan_that_ends_by_a_fault_ends_with_three_and_says_which(
    ending: Run, fault: Exception, said: str
) -> None:
    ended = ending(fault)
    assert ended.exit_code == 3, ended.output
    assert said in ended.output.splitlines()[-1]
