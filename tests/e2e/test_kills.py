"""Replicas that are killed at any moment: no ALLOW is unlogged, and log and database agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.resilience.kills import kill_replicas
from testkit.lanes import daily
from testkit.postgres import PostgresMissingError, postgres_server

pytestmark = pytest.mark.needs("initdb")


@pytest.mark.parametrize("kills", daily(2, of=(2, 4)))
def test_replicas_that_are_killed_at_any_moment_allow_nothing_unlogged(
    tmp_path: Path, kills: int
) -> None:
    try:
        with postgres_server() as postgres:
            killed = kill_replicas(tmp_path, postgres, kills=kills, longest_s=0.3, torn_every=2)
    except PostgresMissingError as error:
        pytest.skip(str(error))
    assert killed.kills == kills
    assert killed.torn == kills // 2
    assert killed.allowed > 10
    assert killed.missing == []
    assert killed.open_without_decision == []
    assert killed.different == []
    assert all("decisions, last digest" in said for said in killed.verified)
