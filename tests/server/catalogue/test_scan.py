"""A whole catalogue through the command: killed, ended, resumed, and equal to a live server."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from testkit.derived_adapters import CLEAR, LEARNED, rescaled
from testkit.waiting import eventually
from tests.server.catalogue.scans import (
    Cluster,
    by_digest,
    decisions,
    live,
    logged,
    plain,
    rows,
    scanning,
)

COUNT = 16
BATCH = ("--batch", "4")


@dataclass(frozen=True)
class Story:
    """A scan so far.

    Attributes:
        before: decisions that were on record when it had ended.
    """

    catalogue: Path
    state: Path
    before: frozenset[str]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clear files, a learned one, a copy, one that is cut short and one that is no file."""
    folder = tmp_path_factory.mktemp("catalogue")
    made = rescaled(CLEAR, folder, [0.2 + number / COUNT for number in range(COUNT)])
    shutil.copy(LEARNED, folder / "learned.safetensors")
    (folder / "copies").mkdir()
    shutil.copy(made[0], folder / "copies" / "copy.safetensors")
    (folder / "cut.safetensors").write_bytes(LEARNED.read_bytes()[:5000])
    (folder / "link.safetensors").symlink_to(made[1])
    return folder


@pytest.fixture(scope="module")
def stopped(catalogue: Path, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Ended in order, as soon as it had decided about something."""
    state = tmp_path_factory.mktemp("state")
    with scanning(cluster, "scan", catalogue, state, *BATCH) as scan:
        scan.until(lambda: logged(state) > 0)
        os.kill(scan.process.pid, signal.SIGTERM)
        assert scan.wait() == 3, scan.said
        assert " left; results in" in scan.said
    return Story(catalogue, state, frozenset(ids(state)))


@pytest.fixture(scope="module")
def resumed(stopped: Story, cluster: Cluster) -> Story:
    """To its end."""
    with scanning(cluster, "scan", stopped.catalogue, stopped.state, *BATCH) as scan:
        assert scan.wait() == 1, scan.said
    return stopped


def ids(state: Path) -> list[str]:
    return [one.decision_id for one in decisions(state)]


@pytest.mark.long  # a watch that is killed is asked the same daily (test_watch.py)
@pytest.mark.timeout(300)
def test_a_scan_that_is_killed_leaves_its_decisions_and_no_process_behind(
    catalogue: Path, cluster: Cluster, tmp_path: Path
) -> None:
    with scanning(cluster, "scan", catalogue, tmp_path, *BATCH) as scan:
        # The last line may have been killed before its row.
        scan.until(lambda: logged(tmp_path) >= 4)
        scan.process.kill()
        scan.process.join(30)
    before = set(ids(tmp_path))
    assert 3 <= len(before) < COUNT
    assert eventually(lambda: not cluster.left_over(), 60)
    with scanning(cluster, "scan", catalogue, tmp_path, *BATCH) as scan:
        assert scan.wait() == 1, scan.said
    assert before < set(ids(tmp_path))
    assert len(by_digest(decisions(tmp_path))) == len(ids(tmp_path)) == COUNT + 1


@pytest.mark.timeout(300)
def test_a_scan_that_is_told_to_end_says_what_is_left(stopped: Story) -> None:
    assert 0 < len(stopped.before) < COUNT + 1


@pytest.mark.timeout(300)
def test_it_goes_on_and_decides_about_each_file_once(resumed: Story) -> None:
    every = decisions(resumed.state)
    digests = Counter(one.decision.evidence.adapters[0].sha256 for one in every)
    assert len(digests) == COUNT + 1
    assert set(digests.values()) == {1}
    assert resumed.before <= set(ids(resumed.state))


def test_results_name_each_place_once_with_what_became_of_it(resumed: Story) -> None:
    found = rows(resumed.state)
    outcomes = {Path(row["location"]).name: row for row in found}
    assert len(found) == len(outcomes) == COUNT + 4
    assert Counter(row["outcome"] for row in found) == {
        "decided": COUNT + 1,
        "refused": 2,
        "same": 1,
    }
    assert outcomes["cut.safetensors"]["reason"] == "FILE_TRUNCATED"
    assert outcomes["link.safetensors"]["reason"] == "PATH_NOT_ALLOWED"
    assert outcomes["learned.safetensors"]["verdict"] == "BLOCK"
    assert {row["decision_id"] for row in found if row["decision_id"]} == {
        one.decision_id for one in decisions(resumed.state)
    }


def test_what_a_live_server_decides_is_the_same_to_the_last_bit(
    resumed: Story, tmp_path: Path
) -> None:
    names = ["learned", *(path.stem for path in sorted(resumed.catalogue.glob("harmless-*"))[:3])]
    files = [resumed.catalogue / f"{name}.safetensors" for name in names]
    scanned = by_digest(decisions(resumed.state))
    found = live(files, tmp_path / "live")
    assert len(found) == len(names)
    for digest, one in found.items():
        assert plain(one) == plain(scanned[digest])
