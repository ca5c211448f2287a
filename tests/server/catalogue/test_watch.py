"""A source that is followed: what appears, grows, is replaced or goes, and how a watch ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testkit.derived_adapters import CLEAR, rescaled
from testkit.waiting import eventually
from tests.server.catalogue.scans import Cluster, Scan, decisions, logged, rows, scanning

EVERY = ("--every", "1", "--batch", "4")
LONG_AGO_S = 3600.0


def place(made: Path, folder: Path, name: str) -> Path:
    """Moves a whole file into a folder, which has not changed for an hour."""
    old_s = time.time() - LONG_AGO_S
    os.utime(made, (old_s, old_s))
    return made.rename(folder / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("made")
    return rescaled(CLEAR, folder, [0.3, 0.4, 0.5, 0.6, 0.7])


@pytest.fixture(scope="module")
def incoming(tmp_path_factory: pytest.TempPathFactory, made: list[Path]) -> Path:
    folder = tmp_path_factory.mktemp("incoming")
    place(made[0], folder, "first.safetensors")
    return folder


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watching")


@pytest.fixture(scope="module")
def watch(cluster: Cluster, incoming: Path, state: Path) -> Iterator[Scan]:
    """At work, with what was there decided."""
    with scanning(cluster, "watch", incoming, state, *EVERY) as scan:
        scan.until(lambda: logged(state) == 1)
        yield scan


def metric(scan: Scan, name: str) -> float:
    """A number that the scan shows now."""
    address = re.search(r"http://\S+/metrics", scan.said)
    assert address
    with urllib.request.urlopen(address.group(), timeout=30) as answer:
        text = answer.read().decode()
    [found] = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(found.rpartition(" ")[2])


def _assert_idle(scan: Scan) -> None:
    """Looks at which there is nothing to do cost next to nothing, and nothing is said."""
    process, looks = (
        psutil.Process(scan.process.pid),
        'loragate_catalogue_looks_total{result="done"}',
    )
    scan.until(lambda: metric(scan, "loragate_catalogue_remaining_files") == 0)
    said, first = scan.said, metric(scan, looks)
    spent_s = sum(process.cpu_times()[:2])
    scan.until(lambda: metric(scan, looks) >= first + 3)
    assert sum(process.cpu_times()[:2]) - spent_s < 1.0
    assert scan.said == said


def outcomes(state: Path) -> Counter[tuple[str, str]]:
    return Counter((Path(row["location"]).name, row["outcome"]) for row in rows(state))


@pytest.mark.timeout(300)
def test_files_that_appear_are_taken_whole_and_not_while_they_grow(
    watch: Scan, incoming: Path, state: Path, made: list[Path]
) -> None:
    growing = incoming / "growing.safetensors"
    growing.write_bytes(made[1].read_bytes()[:5000])
    place(made[2], incoming, "renamed.safetensors")
    watch.until(lambda: ("renamed.safetensors", "decided") in outcomes(state))
    assert set(outcomes(state)) == {
        ("first.safetensors", "decided"),
        ("renamed.safetensors", "decided"),
    }
    assert "1 of 2 files" not in watch.said.splitlines()[-1]


@pytest.mark.timeout(300)
def test_after_a_kill_it_finds_what_was_finished_replaced_and_deleted_meanwhile(
    watch: Scan, cluster: Cluster, incoming: Path, state: Path, made: list[Path]
) -> None:
    watch.process.kill()
    watch.process.join(30)
    assert eventually(lambda: not cluster.left_over(), 60)
    before = {one.decision_id for one in decisions(state)}
    growing = incoming / "growing.safetensors"
    growing.unlink()
    place(made[1], incoming, "growing.safetensors")
    (incoming / "renamed.safetensors").unlink()
    shutil.copy(made[3], made[3].with_name("replacement"))
    place(made[3].with_name("replacement"), incoming, "first.safetensors")
    with scanning(cluster, "watch", incoming, state, *EVERY) as again:
        again.until(lambda: outcomes(state)["first.safetensors", "decided"] == 2)
        again.until(lambda: ("growing.safetensors", "decided") in outcomes(state))
        assert before < {one.decision_id for one in decisions(state)}
        assert len(decisions(state)) == 4
        _assert_idle(again)
        os.kill(again.process.pid, signal.SIGTERM)
        assert again.wait() == 0, again.said
        assert "2 files, 0 refused, 0 left" in again.said
