"""The queue and the list of verdicts: what stands there, filters, and paging."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from loragate_server.record.recorder import DEFAULT_PAGE_SIZE
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import POLICY, Opens, evidence, suspected

Records = Callable[..., Verdict]
LEARNED = suspected(family_p_value=0.001, p_value=0.0001)


def audit(verdict: Verdict) -> str:
    return f"/console/audits/{verdict.decision_id}"


async def test_the_queue_shows_what_waits_newest_first_and_how_often_it_was_asked(
    browser: Opens, record: Records
) -> None:
    record(evidence(LEARNED, sha256="c" * 64))
    record(dry_run=True)
    first = record(evidence(suspected("Old Wizard", severity="critical"), sha256="d" * 64))
    record()
    latest = record(service="batch <1>")
    page = await browser().see("/")
    assert page.links("table") == [audit(latest), audit(first)]
    shown = page.text("tbody")
    assert "aaaaaaaaaaaa Star Captain (medium) open 1 2 × emoji-tiny batch <1>" in shown
    assert "dddddddddddd Old Wizard (critical) open 1 1 ×" in shown
    assert "that wait: 2." in page.text()
    japanese = await browser(language="ja").see("/")
    assert "Star Captain（重大度：中） 未確認 1 2回" in japanese.text("tbody")


async def test_a_review_that_waits_for_a_second_person_stays_in_the_queue(
    browser: Opens, record: Records, approve: Callable[..., None]
) -> None:
    severe, mild = (
        record(evidence(suspected(severity="high"))),
        record(evidence(suspected(), sha256="b" * 64)),
    )
    approve(severe)
    approve(mild)
    page = await browser().see("/")
    assert page.links("table") == [audit(severe)]
    assert "waiting for a second approval" in page.text("tbody")


@pytest.mark.parametrize("language", REPORT.languages)
async def test_an_empty_queue_says_so(language: str, browser: Opens) -> None:
    page = await browser(language=language).see("/")
    assert not page.all("table")
    assert page.text(".empty")


async def test_the_queue_goes_on_page_by_page(browser: Opens, record: Records) -> None:
    made = [
        record(evidence(suspected(), sha256=f"{number:064x}"))
        for number in range(DEFAULT_PAGE_SIZE + 1)
    ]
    first = await browser().see("/")
    assert len(first.links("table")) == DEFAULT_PAGE_SIZE
    [older] = first.links(".paging")
    second = await browser().see(older.removeprefix("/console"))
    assert second.links("table") == [audit(made[0])]
    assert second.links(".paging") == ["/console/"]


async def test_a_verdict_is_told_by_words_and_a_sign_and_not_by_colour_alone(
    browser: Opens, record: Records
) -> None:
    record(evidence(LEARNED))
    record(evidence(suspected(family_p_value=0.9, p_value=0.9)))
    record(policy=POLICY.replace(b"enforce", b"pilot"))
    shown = (await browser().see("/verdicts")).text("tbody")
    assert "✕ Blocked" in shown
    assert "✓ Allowed" in shown
    assert "! A person has to decide pilot" in shown


async def test_what_a_caller_calls_an_adapter_stands_beside_its_digest_and_changes_no_page(
    browser: Opens, record: Records
) -> None:
    verdict = record(called="Sunset <script>alert(1)</script>\u202e v2")
    for place in ("/", "/verdicts"):
        shown = (await browser().see(place)).text("table")
        assert "Sunset <script>alert(1)</script>\N{REPLACEMENT CHARACTER} v2" in shown
    page = await browser().see(f"/audits/{verdict.decision_id}")
    assert "as the caller called it" in page.text()
    assert "Sunset <script>alert(1)</script>\N{REPLACEMENT CHARACTER} v2" in page.text()


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("verdict=BLOCK", {"blocked"}),
        ("verdict=REVIEW", {"review", "other"}),
        ("adapter=" + "B" * 8, {"blocked"}),
        ("adapter=" + "b" * 64, {"blocked"}),
        ("adapter=" + "9" * 64, set()),
        ("service=batch", {"other"}),
        ("tenant=tenant-b", {"other"}),
        ("base_model=emoji-tiny", {"review", "blocked"}),
        ("since=2000-01-01&until=2100-01-01", {"review", "blocked", "other"}),
        ("until=2000-01-01", set()),
        ("since=2100-01-01", set()),
        ("verdict=REVIEW&service=image-service", {"review"}),
        ("concept=star-captain", {"review", "blocked", "other"}),
        ("concept=old-wizard", set()),
        ("severity=medium", {"review", "blocked", "other"}),
        ("severity=high", set()),
        ("degree=21", {"review", "blocked", "other"}),
        ("degree=21,1", set()),
        ("concept=star-captain&severity=low&degree=0&service=batch", {"other"}),
        ("reviewer=nobody", set()),
        ("unknown=1", {"review", "blocked", "other"}),
    ],
)
async def test_a_filter_shows_what_matches(
    query: str, found: set[str], browser: Opens, record: Records
) -> None:
    made = {
        "review": record(),
        "blocked": record(evidence(LEARNED, sha256="b" * 64)),
        "other": record(
            evidence(suspected(), base_model="big", sha256="c" * 64),
            service="batch",
            tenant="tenant-b",
        ),
    }
    page = await browser().see(f"/verdicts?{query}")
    assert set(page.links("table")) == {audit(made[name]) for name in found}


async def test_days_count_in_utc_and_with_both_ends(browser: Opens, record: Records) -> None:
    verdict = record()
    day = verdict.decided_at.astimezone(UTC).date()
    page = await browser().see(f"/verdicts?since={day}&until={day}")
    assert page.links("table") == [audit(verdict)]
    before = day - timedelta(days=1)
    assert not (await browser().see(f"/verdicts?until={before}")).links("table")


async def test_filters_are_kept_in_the_form_and_in_the_links_of_the_pages(
    browser: Opens, record: Records
) -> None:
    for _ in range(DEFAULT_PAGE_SIZE + 1):
        record(tenant="a&b=<c>")
    record(tenant="other")
    page = await browser().see("/verdicts?tenant=a%26b%3D%3Cc%3E&verdict=REVIEW")
    [tenant] = [one for one in page.all("input") if one.get("name") == "tenant"]
    assert tenant["value"] == "a&b=<c>"
    assert [one["value"] for one in page.all("option") if "selected" in one] == ["REVIEW"]
    [older] = page.links(".paging")
    kept = parse_qs(urlsplit(older).query)
    assert (kept["tenant"], kept["verdict"]) == (["a&b=<c>"], ["REVIEW"])
    second = await browser().see(older.removeprefix("/console"))
    assert len(second.links("table")) == 1
    [first] = second.links(".paging")
    assert "page_token" not in first
    assert "tenant" in first


@pytest.mark.parametrize("language", REPORT.languages)
@pytest.mark.parametrize(
    "query",
    ["adapter=abc", "adapter=" + "g" * 8, "adapter=%27%20OR%201=1", "since=yesterday",
     "until=9999-12-31", "since=2026-02-30", "verdict=MAYBE", "severity=grave", "degree=x",
     "degree=-1", "degree=nan", "degree=101", "since=2026-02-02&until=2026-02-01"],
)  # fmt: skip
async def test_a_filter_that_means_nothing_is_named(
    query: str, language: str, browser: Opens, record: Records
) -> None:
    record()
    page = await browser(language=language).see(f"/verdicts?{query}", status=400)
    assert not page.all("table")
    [problem] = page.all("div", "form")[:1] or [{}]
    assert problem.get("role") == "alert"
    [marked] = [one for one in (*page.all("input"), *page.all("select")) if one.get("aria-invalid")]
    assert page.links(".problem") == [f"#{marked['id']}"]


@pytest.mark.parametrize("path", ["/", "/verdicts", "/verdicts?service=x"])
@pytest.mark.parametrize("token", ["x", "%00", "AAAA", "%F0%9F%92%A3"])
async def test_a_damaged_page_token_is_refused(path: str, token: str, browser: Opens) -> None:
    joint = "&" if "?" in path else "?"
    page = await browser().see(f"{path}{joint}page_token={token}", status=400)
    assert "Begin again" in page.text()


async def test_times_are_written_for_machines_as_well(browser: Opens, record: Records) -> None:
    verdict = record()
    page = await browser().see("/verdicts")
    [moment] = page.all("time")
    assert datetime.fromisoformat(moment["datetime"] or "") == verdict.decided_at.replace(
        microsecond=0
    )


async def test_a_restricted_question_is_marked_and_waits_for_nobody(
    browser: Opens, record: Records
) -> None:
    record(evidence(suspected(), restricted_to=("star-captain",)))
    assert "some concepts only" in (await browser().see("/verdicts")).text("tbody")
    japanese = await browser(language="ja").see("/verdicts")
    assert "一部のコンセプトのみ" in japanese.text("tbody")
    assert not (await browser().see("/")).all("table")
