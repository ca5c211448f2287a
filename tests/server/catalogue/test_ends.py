"""How a scan ends, for whoever started it: by an exit code that means one thing."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from loragate_server.app import cataloguing
from loragate_server.app.catalogue_means import Building
from loragate_server.app.catalogue_refusals import refusals
from loragate_server.catalogue.listing import SourceError
from loragate_server.catalogue.results import Results
from loragate_server.catalogue.scan import Outcome
from loragate_server.cli.command import application
from loragate_server.config.schema import StartError
from loragate_server.config.sources import ignored_environment
from testkit.waiting import busyness
from tests.server.catalogue.scans import Cluster, scanning

Run = Callable[..., Result]


class OutOfMemoryError(Exception):
    """As Ray's is called, which is no MemoryError."""


@pytest.fixture
def ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command over a folder of one file, with a scan that ends so."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "one.safetensors").touch()
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


def test_a_source_without_adapters_is_refused_before_a_model_is_loaded(
    ending: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source" / "one.safetensors").rename(tmp_path / "source" / "one.ckpt")
    empty = Outcome(tmp_path / "out", 0, 0, 0)
    accepted = ending(empty, "--allow-empty")
    assert accepted.exit_code == 0, accepted.output
    assert "0 files, 0 refused, 0 left" in accepted.output

    def entry_of(*_: Any) -> None:
        raise AssertionError("the base model is looked for")

    monkeypatch.setattr(cataloguing, "entry_of", entry_of)
    refused = ending(empty)
    assert refused.exit_code == 3, refused.output
    told = " ".join(refused.output.split())
    assert f"There is no adapter in {tmp_path / 'source'}. Is it the right place?" in told
    assert "--allow-empty accepts it" in told


def test_a_signal_ends_a_scan_that_still_builds_its_gradients(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "one.safetensors").touch()
    empty = {"LORAGATE_CACHE_DIR": str(tmp_path / "cache")}
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # is asked nothing before all is built
        scanning(
            Cluster(f"127.0.0.1:{silent.getsockname()[1]}", {}, tmp_path),
            "scan",
            tmp_path / "source",
            tmp_path,
            variables=empty,
        ) as scan,
    ):
        scan.until(lambda: "gradients of emoji-tiny" in scan.said)
        assert "loading emoji-tiny\n" in scan.said
        told_s = time.monotonic()
        os.kill(scan.process.pid, signal.SIGTERM)
        assert scan.wait() == 3, scan.said
    assert time.monotonic() - told_s < 10 + busyness()
    last = scan.said.splitlines()[-1]
    assert "The scan was stopped before the first file, at: gradients of emoji-tiny." in last
    assert "Traceback" not in scan.said


def test_what_is_built_before_the_first_file_is_told_now_and_then() -> None:
    lines, now_s = list[str](), 0.0
    told = Building(lines.append, lambda: now_s > 20, lambda: now_s)
    told("loading tiny", 0.0)
    for now_s in (1.0, 2.0, 13.0, 14.0):
        told("gradients of tiny", now_s / 20)
    assert lines == ["loading tiny", "gradients of tiny", "gradients of tiny: 65%"]
    now_s = 21.0
    with pytest.raises(StartError, match="stopped before the first file, at: gradients of tiny"):
        told("gradients of tiny", 1.0)


def test_the_first_files_that_were_refused_are_named_with_why(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.add({"location": "/a", "outcome": "refused", "reason": "OLD", "message": "As it was."})
    results.flush()
    for name in "abcdefg":
        why = {"reason": "FILE_TRUNCATED", "message": "It is cut\nshort."}
        results.add({"location": f"/{name}", "outcome": "refused", **why})
    results.flush()
    first, *_, fifth, rest = refusals(tmp_path, [f"/{name}" for name in "abcdefg"])
    assert first == "refused: /a: FILE_TRUNCATED: It is cut short."
    assert fifth.startswith("refused: /e: ")
    assert rest == "... and 2 more refused; the results name each with its reason"
