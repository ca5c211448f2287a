"""Two revisions are compared by what their servers record."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from scripts import same_evidence

ROOT = Path(__file__).parents[2]
ADAPTER = ROOT / "examples" / "adapters" / "learned-bomb.safetensors"


def test_every_number_that_differs_is_told_with_its_place() -> None:
    before = {"concepts": [{"score": 1.5, "layers": [1, 2]}], "verdict": "ALLOW"}
    after = json.loads(json.dumps(before))
    assert list(same_evidence._differences(before, after)) == []
    after["concepts"][0]["score"] = 1.5000000000000002
    after["concepts"][0]["layers"].append(3)
    after["new"] = None
    told = list(same_evidence._differences(before, after))
    places = ["concepts[0].layers", "concepts[0].score", "new"]
    assert [one.partition(":")[0] for one in told] == places


def test_what_names_a_moment_or_a_revision_is_left_out() -> None:
    given = {"engine_version": "3", "uses": [{"stage_times_s": {"screen": 1.0}, "loaders": ["a"]}]}
    assert same_evidence._plain(given) == {"uses": [{"loaders": ["a"]}]}


@pytest.mark.long
def test_a_revision_has_the_same_evidence_as_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert same_evidence.main(["HEAD", str(ADAPTER)]) == 0
    assert "1 of 1 adapters have the same evidence" in capsys.readouterr().out
    trees = subprocess.run(
        ["git", "-C", str(ROOT), "worktree", "list"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "/tree" not in trees.stdout
