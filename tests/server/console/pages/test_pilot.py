"""Statistics: counts with their intervals, and what another threshold would have meant."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from loragate_server.console.pages import pilot_figures
from loragate_server.console.pages.chart import BOTTOM, TOP, chart
from loragate_server.console.pages.pilot_figures import Setting, Share
from loragate_server.console.wording import console_wording
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from loragate_server.shares import interval
from tests.server.console.pages.material import POLICY, Opens, evidence, suspected

Records = Callable[..., Verdict]
P_VALUES = (0.0005, 0.005, 0.03, 0.03, 0.07, 0.5)


@pytest.fixture
def recorded(record: Records) -> list[Verdict]:
    """Six decisions in pilot mode, from certain to harmless, and a dry run."""
    pilot = POLICY.replace(b"enforce", b"pilot")
    made = [
        record(evidence(suspected(p_value=p, family_p_value=p)), policy=pilot) for p in P_VALUES
    ]
    record(dry_run=True)
    return made


@pytest.mark.parametrize("language", REPORT.languages)
async def test_the_figures_are_those_of_the_recorded_decisions(
    language: str, browser: Opens, recorded: list[Verdict]
) -> None:
    page = await browser(language=language).see("/statistics")
    counts = page.text("tbody").split()
    low, high = (f"{100 * end:.1f} %" for end in interval(2, 6))
    wording = console_wording(language)
    recorded_part, swept_part = " ".join(counts).split("0.001 ")
    assert f"✕ {wording('verdict.BLOCK')} 2 33.3 % " in recorded_part
    assert f"! {wording('verdict.REVIEW')} 2 33.3 % " in recorded_part
    assert f"✓ {wording('verdict.ALLOW')} 2 33.3 % " in recorded_part
    assert wording("pilot.between", low=low, high=high) in recorded_part
    assert swept_part.startswith("1 16.7 %")
    assert f"0.01 {wording('pilot.in_force')} 2 33.3 %" in swept_part
    assert "0.05 4 66.7 %" in swept_part
    assert "0.1 5 83.3 %" in swept_part


@pytest.mark.parametrize("language", REPORT.languages)
async def test_the_chart_says_in_words_what_it_draws(
    language: str, browser: Opens, recorded: list[Verdict]
) -> None:
    page = await browser(language=language).see("/statistics")
    [drawing] = page.all("svg")
    assert drawing["role"] == "img"
    assert drawing["aria-labelledby"] == "chart-title chart-text"
    words = page.text("#chart-text")
    for part in ("0.001", "16.7 %", "0.05", "66.7 %", "83.3 %"):
        assert part in words
    assert len(page.all("circle")) == 4


async def test_days_bound_what_is_counted(browser: Opens, recorded: list[Verdict]) -> None:
    day = recorded[0].decided_at.astimezone(UTC).date()
    page = await browser().see(f"/statistics?since={day}&until={day}")
    assert "counted: 6," in page.text()
    later = day + timedelta(days=1)
    assert "no decisions" in (await browser().see(f"/statistics?since={later}")).text(".empty")
    wrong = await browser().see("/statistics?since=x", status=400)
    assert wrong.links(".problem") == ["#since"]


async def test_only_the_newest_decisions_are_counted_and_the_page_says_so(
    browser: Opens, recorded: list[Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Only the newest" not in (await browser().see("/statistics")).text()
    monkeypatch.setattr(pilot_figures, "MOST_DECISIONS", 2)
    page = await browser().see("/statistics?since=2000-01-01")
    assert "counted: 2," in page.text()
    assert "Only the newest" in page.text(".caution")


async def test_a_setting_of_the_policy_s_own_is_among_those_that_are_compared(
    browser: Opens, recorded: list[Verdict], policy_file: Path
) -> None:
    policy_file.write_bytes(POLICY.replace(b"block_p_value: 0.01", b"block_p_value: 0.02"))
    page = await browser().see("/statistics")
    assert "0.02 in force 2 33.3 %" in page.text("tbody")
    assert len(page.all("circle")) == 5
    assert len([one for one in page.all("circle") if "in-force" in (one["class"] or "")]) == 1


async def test_a_policy_that_cannot_be_used_is_named(
    browser: Opens, recorded: list[Verdict], policy_file: Path
) -> None:
    policy_file.write_text("mode: enforce\n")
    page = await browser().see("/statistics", status=503)
    assert "version: is missing" in page.text()
    policy_file.unlink()
    assert "cannot be read" in (await browser().see("/statistics", status=503)).text()


async def test_figures_are_kept_for_a_minute(
    browser: Opens, recorded: list[Verdict], record: Records, recorder: Recorder
) -> None:
    assert "counted: 6," in (await browser().see("/statistics")).text()
    record()
    assert "counted: 6," in (await browser().see("/statistics")).text()
    assert "counted: 7," in (await browser().see("/statistics?since=2000-01-01")).text()


@pytest.mark.parametrize(
    "settings",
    [
        [Setting(0.0, Share(0, 5, 0.0, 0.6), True), Setting(0.1, Share(5, 5, 0.4, 1.0), False)],
        [Setting(0.01, Share(0, 100000, 0.0, 0.0001), True)],
        [Setting(0.0, Share(0, 0, 0.0, 1.0), False)],
    ],
)
def test_a_chart_stays_within_its_frame(settings: list[Setting]) -> None:
    drawn = chart(console_wording("en"), settings)
    for point in drawn.points:
        assert drawn.left <= point.x <= drawn.right
        assert TOP <= point.high_y <= point.y <= point.low_y <= BOTTOM
