"""SIGKILL while many callers ask: nothing that was answered is missing from the decision log."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.resilience.stops import crash


@pytest.mark.long
def test_a_killed_server_has_written_down_every_allow_that_a_caller_got(tmp_path: Path) -> None:
    crashed = crash(tmp_path, kills=1, decisions_each=60, torn_every=1)
    print(f"{crashed.allowed} answers ALLOW compared; {crashed.verified}")
    assert crashed.allowed > 100
    assert crashed.missing == []
    assert crashed.unreadable == []
    assert crashed.open_without_decision == []
    assert crashed.unexpected == []
    assert crashed.torn_lines == 1
    assert (tmp_path / "decisions.jsonl.torn-1").stat().st_size > 0
    assert "decisions, last digest" in crashed.verified
