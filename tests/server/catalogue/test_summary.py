"""The page over a scan: what it counts, in every language, and what it does with hostile names."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from loragate_server.catalogue.results import Results
from loragate_server.catalogue.summary import summarise
from loragate_server.cli.command import application
from loragate_server.policy.decision import VerdictKind
from loragate_server.report.summary import Counted, render_summary
from loragate_server.report.wording import REPORT

HOSTILE = "<script>alert(1)</script>"


def row(place: str, verdict: VerdictKind, outcome: str = "decided", **more: object) -> object:
    return {
        "location": place,
        "outcome": outcome,
        "would_be_verdict": verdict.value,
        "mode": "ENFORCE",
        "stage_times_s": [("screen", 0.5), ("record", 0.25)],
        **more,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    results = Results(tmp_path / "0123456789abcdef")
    for one in (
        row("/1", VerdictKind.BLOCK, concept_name=HOSTILE),
        row("/2", VerdictKind.REVIEW, concept_name=HOSTILE, parents=["ab" * 32]),
        row("/2", VerdictKind.BLOCK, concept_name=HOSTILE, parents=["ab" * 32]),
        row("/3", VerdictKind.ALLOW, concept_name="Princess"),
        row("/4", VerdictKind.ALLOW, "same", concept_name="Princess"),
        {"location": "/5", "outcome": "refused", "reason": "FILE_TRUNCATED"},
    ):
        results.add(one)  # type: ignore[arg-type]
    results.flush()
    return tmp_path / "0123456789abcdef"


def test_a_summary_counts_each_place_by_its_newest_row(folder: Path) -> None:
    found = summarise(folder)
    assert found.files == 5
    assert found.verdicts == {VerdictKind.BLOCK: 2, VerdictKind.ALLOW: 2}
    assert found.same == 1
    assert found.concepts == (Counted(HOSTILE, 2, 2),)
    assert found.families == (Counted("ab" * 32, 1, 1),)
    assert found.refused == (Counted("FILE_TRUNCATED", 1),)
    assert found.stages == {"screen": 1.5, "record": 0.75}


@pytest.mark.parametrize("language", REPORT.languages)
def test_the_page_is_in_every_language_and_runs_nothing_hostile(
    folder: Path, language: str
) -> None:
    page = render_summary(summarise(folder), language)
    assert f'<html lang="{language}">' in page
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert "FILE_TRUNCATED" in page


def test_the_command_writes_the_page_beside_the_results(folder: Path) -> None:
    done = CliRunner().invoke(application, ["catalogue", "summary", str(folder)])
    assert done.exit_code == 0, done.output
    assert (folder / "summary.html").exists()
    empty = CliRunner().invoke(application, ["catalogue", "summary", str(folder.parent)])
    assert empty.exit_code == 2
