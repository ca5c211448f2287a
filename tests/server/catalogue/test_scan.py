"""A whole catalogue through the command: killed, resumed, and equal to what a live server says."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from loragate import AuditClient
from loragate_server.catalogue.results import parts_in, read_parts
from loragate_server.record.codec import parse_verdict
from loragate_server.record.database import Database, Span
from loragate_server.record.verdict import Verdict
from loragate_server.replay import stored_decisions
from loragate_server.testing import environment
from testkit.derived_adapters import CLEAR, LEARNED, rescaled
from testkit.servers import forked_server
from testkit.waiting import at_most, eventually

COUNT = 60


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty clear files, a learned one, a copy, one that is cut short and one that is no file."""
    folder = tmp_path_factory.mktemp("catalogue")
    made = rescaled(CLEAR, folder, [0.2 + number / COUNT for number in range(COUNT)])
    shutil.copy(LEARNED, folder / "learned.safetensors")
    (folder / "copies").mkdir()
    shutil.copy(made[0], folder / "copies" / "copy.safetensors")
    (folder / "cut.safetensors").write_bytes(LEARNED.read_bytes()[:5000])
    (folder / "link.safetensors").symlink_to(made[1])
    return folder


class Scan:
    """The command, as an operator starts it."""

    def __init__(self, source: Path, state: Path) -> None:
        self.state = state
        self.log = state / "scan.log"
        words = ["catalogue", "scan", str(source), "--batch", "8"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "loragate_server", *words],
                env=environment(state, {"LORAGATE_THREADS": "1"}),
                stdout=log,
                stderr=log,
            )

    def left_over(self) -> list[psutil.Process]:
        """Processes that the scan has started, whatever became of it."""
        sign = f"/lg-ray-{self.process.pid}-"
        found = []
        for one in psutil.process_iter(["cmdline"]):
            if any(sign in word for word in one.info["cmdline"] or ()):
                found.append(one)
        return found

    @property
    def ended(self) -> bool:
        """Whether the command has ended by itself."""
        return self.process.poll() is not None

    def wait(self) -> int:
        return self.process.wait(at_most(60))


def decisions(state: Path) -> list[Verdict]:
    with closing(Database(f"sqlite:///{state / 'loragate.sqlite3'}", 10)) as database:
        return [parse_verdict(one.payload) for one in stored_decisions(database, Span())]


def logged(state: Path) -> int:
    file = state / "decisions.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.timeout(600)
def test_a_scan_killed_in_the_middle_goes_on_and_decides_about_each_file_once(
    catalogue: Path, tmp_path: Path
) -> None:
    first = Scan(catalogue, tmp_path)
    try:
        assert eventually(lambda: logged(tmp_path) >= 12 or first.ended, 120)
        assert not first.ended, first.log.read_text()
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(30)
        before = {one.decision_id for one in decisions(tmp_path)}
        assert 12 <= len(before) < COUNT
        assert eventually(lambda: not first.left_over(), 60)  # nothing of Ray outlives its driver

        stopped = Scan(catalogue, tmp_path)  # in order this time, as soon as it goes on
        assert eventually(lambda: logged(tmp_path) > len(before) or stopped.ended, 120)
        stopped.process.send_signal(signal.SIGTERM)
        assert stopped.wait() == 3, stopped.log.read_text()
        assert " left; results in" in stopped.log.read_text()

        second = Scan(catalogue, tmp_path)
        assert second.wait() == 1, second.log.read_text()
        assert eventually(lambda: not second.left_over(), 60)
    finally:
        first.process.kill()

    every = decisions(tmp_path)
    digests = Counter(one.decision.evidence.adapters[0].sha256 for one in every)
    assert len(digests) == COUNT + 1
    assert set(digests.values()) == {1}
    assert before < {one.decision_id for one in every}

    [folder] = {part.parent for part in (tmp_path / "catalogue").glob("*/part-*.parquet")}
    rows = [row for batch in read_parts(folder) for row in batch.to_pylist()]
    assert parts_in(folder)
    outcomes = {Path(row["location"]).name: row for row in rows}
    assert len(rows) == len(outcomes) == COUNT + 4
    assert Counter(row["outcome"] for row in rows) == {
        "decided": COUNT + 1,
        "refused": 2,
        "same": 1,
    }
    assert outcomes["cut.safetensors"]["reason"] == "FILE_TRUNCATED"
    assert outcomes["link.safetensors"]["reason"] == "PATH_NOT_ALLOWED"
    assert outcomes["learned.safetensors"]["verdict"] == "BLOCK"
    assert {row["decision_id"] for row in rows if row["decision_id"]} == {
        one.decision_id for one in every
    }
    _assert_as_live(catalogue, every, tmp_path / "live")


def _assert_as_live(catalogue: Path, scanned: list[Verdict], state: Path) -> None:
    """What a live server decides about some of the files is the same, to the last bit."""
    state.mkdir()
    names = ["learned", *(path.stem for path in sorted(catalogue.glob("harmless-*"))[:3])]
    with (
        forked_server(state, {"LORAGATE_THREADS": "1"}) as server,
        AuditClient(server.grpc, on_unavailable="raise", timeout=120) as client,
    ):
        for name in names:
            client.audit_file(catalogue / f"{name}.safetensors")
    live = {one.decision.evidence.adapters[0].sha256: one for one in decisions(state)}
    assert len(live) == len(names)
    by_digest = {one.decision.evidence.adapters[0].sha256: one for one in scanned}
    for sha256, one in live.items():
        assert _plain(one) == _plain(by_digest[sha256])


def _plain(verdict: Verdict) -> str:
    """All of a decision but how long it took."""
    evidence = replace(verdict.decision.evidence, stage_times_s={})
    return repr(replace(verdict.decision, evidence=evidence))
