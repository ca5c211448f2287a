"""Trends by day: the figures, the pictures, and what is left out of both."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pytest

from loragate_server.console.pages import trends
from loragate_server.console.pages.durations import duration
from loragate_server.console.pages.trends import read_span
from loragate_server.console.wording import console_wording
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import POLICY, Opens, evidence, suspected

Records = Callable[..., Verdict]
LEARNED = suspected(family_p_value=0.001, p_value=0.0001)
HARMLESS = suspected(family_p_value=0.9, p_value=0.9)


def today() -> str:
    return datetime.now(UTC).date().isoformat()


@pytest.fixture
def recorded(record: Records, approve: Callable[..., None]) -> None:
    """A day with every kind of verdict but one, two concepts, and a settled review."""
    wizard = suspected("Old <Wizard> $x^$", concept_id="old-wizard")
    approve(record())
    record(evidence(wizard, sha256="b" * 64))
    record(evidence(LEARNED, sha256="c" * 64), policy=POLICY.replace(b"enforce", b"pilot"))
    record(evidence(HARMLESS, sha256="d" * 64))
    record(dry_run=True)


@pytest.mark.parametrize("language", REPORT.languages)
async def test_a_day_counts_verdicts_concepts_and_settled_reviews(
    language: str, browser: Opens, recorded: None
) -> None:
    page = await browser(language=language).see("/trends")
    wording = console_wording(language)
    verdicts, concepts, waits = page.text("tbody").split(today())[1:]
    assert verdicts.split() == ["1", "2", "0", "1"]
    assert concepts.split() == ["2", "1"]
    assert waits.split()[0] == "1"
    assert wording("duration.minutes", count=0) in waits
    keys = page.text(".key")
    assert f"{wording('verdict.BLOCK')} Star Captain Old <Wizard> $x^$" in keys


async def test_every_picture_of_the_page_is_svg_that_can_do_nothing(
    browser: Opens, recorded: None
) -> None:
    page = await browser().see("/trends")
    images = page.all("img")
    assert len(images) == 3
    assert all(one["alt"] for one in images)
    sources = [one["srcset"] for one in page.all("source")] + [one["src"] for one in images]
    assert len(set(sources)) == 12
    for source in sources:
        answer = await browser().ask((source or "").removeprefix("/console"))
        assert answer.status == 200
        assert answer.content_type == "image/svg+xml"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert "script" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        picture = await answer.read()
        assert ElementTree.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
        assert b"Wizard" not in picture
        assert len(picture) < 100_000


async def test_a_year_of_days_fits_and_a_longer_time_is_refused(
    browser: Opens, recorded: None
) -> None:
    begin = (datetime.now(UTC) - timedelta(days=365)).date()
    page = await browser().see(f"/trends?since={begin}")
    last = page.all("img")[0]["src"] or ""
    picture = await (await browser().ask(last.removeprefix("/console"))).read()
    assert len(picture) < 400_000
    before = begin - timedelta(days=1)
    refused = await browser().see(f"/trends?since={before}", status=400)
    assert refused.links(".problem") == ["#since"]
    assert not refused.all("img")


@pytest.mark.parametrize("language", REPORT.languages)
@pytest.mark.parametrize(
    "query",
    ["since=x", "until=2026-02-30", "since=2026-02-02&until=2026-02-01", "since=2999-01-01",
     "since=0001-01-01", "until=9999-12-31"],
)  # fmt: skip
async def test_days_that_cannot_be_shown_are_named(
    query: str, language: str, browser: Opens, recorded: None
) -> None:
    page = await browser(language=language).see(f"/trends?{query}", status=400)
    assert page.links(".problem")
    assert not page.all("table")


async def test_the_first_days_of_all_time_are_no_fault() -> None:
    faults: dict[str, str] = {}
    days = read_span({"since": "", "until": "0001-01-03"}, faults)
    assert faults == {}
    assert days is not None


@pytest.mark.parametrize(
    "query", ["scheme=x", "size=x", "since=x", "since=0001-01-01", "scheme=light&size=../wide"]
)
async def test_a_picture_of_something_else_is_refused(query: str, browser: Opens) -> None:
    await browser().see(f"/trends/verdicts.svg?{query}", status=400)
    await browser().see("/trends/others.svg", status=404)


@pytest.mark.parametrize("language", REPORT.languages)
async def test_without_a_charting_library_the_tables_stay_and_the_page_says_why(
    language: str, browser: Opens, recorded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trends, "can_draw", lambda: False)
    page = await browser(language=language).see("/trends")
    assert not page.all("img")
    assert len(page.all("table")) == 3
    assert all("open" in one for one in page.all("details"))
    assert console_wording(language)("trends.no_pictures") in page.text()


@pytest.mark.parametrize("language", REPORT.languages)
async def test_days_without_anything_say_so(language: str, browser: Opens) -> None:
    page = await browser(language=language).see("/trends")
    assert console_wording(language)("trends.none") == page.text(".empty")
    assert not page.all("table")


def test_a_time_is_told_in_the_unit_that_people_use() -> None:
    wording = console_wording("en")
    shown = [duration(wording, seconds) for seconds in (0, 1800, 3600, 86400, 3 * 86400)]
    assert shown == ["0 min", "30 min", "1.0 h", "24.0 h", "3.0 days"]
