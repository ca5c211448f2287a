"""The page of a file with several uses: what it lists, and what an approval covers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from loragate_server.console.wording import console_wording
from loragate_server.record.reviews.review import ReviewState
from loragate_server.record.reviews.reviews import Reviews
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import HOSTILE, Opens, evidence, suspected

Records = Callable[..., Verdict]
SOON = (datetime.now(UTC) + timedelta(days=7)).date().isoformat()


@pytest.fixture
def asked(record: Records) -> Callable[..., Verdict]:
    """A service asks about the same file at a strength."""

    def ask(strength: float, service: str = "image-service", **facts: object) -> Verdict:
        found = evidence(suspected(**facts))
        adapters = tuple(
            replace(one, denoiser_strength=strength, text_encoder_strength=strength)
            for one in found.adapters
        )
        return record(replace(found, adapters=adapters), service=service)

    return ask


def path(verdict: Verdict) -> str:
    return f"/audits/{verdict.decision_id}"


async def test_the_queue_has_a_row_for_a_file_with_the_gravest_of_its_uses(
    browser: Opens, asked: Callable[..., Verdict]
) -> None:
    asked(1.0, severity="critical")
    newest = asked(0.5)
    page = await browser().see("/")
    assert page.links("table") == [f"/console{path(newest)}"]
    assert "critical" in page.text(".severity")
    assert "open 2 2 ×" in page.text("tbody")


@pytest.mark.parametrize("language", REPORT.languages)
async def test_the_page_lists_every_use_and_offers_each_of_them(
    language: str, browser: Opens, asked: Callable[..., Verdict]
) -> None:
    full, half = asked(1.0), asked(0.5, service=HOSTILE)
    page = await browser(language=language).see(path(full))
    table = page.text(".uses")
    assert console_wording(language)("review.uses") in table
    assert "<script>alert(1)</script>" in table
    assert f"/console{path(half)}" in page.links(".uses")
    boxes = [one for one in page.all("input", "#covered") if one.get("type") == "checkbox"]
    assert len(boxes) == 2
    assert all("checked" in one for one in boxes)
    assert "star-captain" not in page.text("#covered")
    assert "Star Captain" in page.text("#covered")


async def test_one_approval_covers_what_is_checked(
    browser: Opens, asked: Callable[..., Verdict], reviews: Reviews
) -> None:
    full, half = asked(1.0), asked(0.5)
    page = await browser().see(path(full))
    keys = [one["value"] or "" for one in page.all("input", "#covered")]
    sent = await browser().send(
        path(full), page, action="approve", reason="Half of it.", expires=SOON, use=keys[1]
    )
    assert sent.status == 303
    assert reviews.case(full.decision_id).state is ReviewState.OPEN
    assert reviews.case(half.decision_id).state is ReviewState.APPROVED
    again = await browser(name="bob").see(path(full))
    assert "approved" in again.text(".uses")
    sent = await browser(name="bob").send(
        path(full), again, action="approve", reason="All of it.", expires=SOON
    )
    assert sent.status == 303
    assert reviews.case(full.decision_id).state is ReviewState.APPROVED


async def test_all_uses_are_one_act_and_one_line_of_the_history(
    browser: Opens, asked: Callable[..., Verdict], reviews: Reviews
) -> None:
    full, half = asked(1.0), asked(0.5)
    page = await browser().see(path(half))
    sent = await browser().send(path(half), page, action="reject", reason="No licence.")
    shown = await browser().see(sent.headers["Location"].removeprefix("/console"))
    assert "alice rejected" in shown.text(".done")
    assert shown.text(".events").count("No licence.") == 1
    assert "rejected No licence. 2 this one" in shown.text(".events")
    assert not (await browser().see("/")).all("table")
    assert "Rejected by reviewers" in (await browser().see(path(full))).text(".badge")


@pytest.mark.parametrize("language", REPORT.languages)
async def test_an_approval_of_nothing_comes_back_as_it_was(
    language: str, browser: Opens, asked: Callable[..., Verdict], reviews: Reviews
) -> None:
    full, _ = asked(1.0), asked(0.5)
    reader = browser(language=language)
    page = await reader.see(path(full))
    data = {**page.form("act"), "action": "approve", "reason": "None.", "expires": SOON}
    answer = await reader.ask(
        path(full), method="POST", data=data, headers={"Origin": "http://localhost:8000"}
    )
    text = await answer.text()
    assert answer.status == 400
    assert console_wording(language)("refused.uses_missing") in text
    assert reviews.case(full.decision_id).events == ()


async def test_a_use_that_the_reader_has_approved_is_not_offered_again(
    browser: Opens, asked: Callable[..., Verdict]
) -> None:
    severe = asked(1.0, severity="critical")
    page = await browser().see(path(severe))
    await browser().send(path(severe), page, action="approve", reason="One.", expires=SOON)
    asked(0.5, severity="critical")
    asked(0.25, severity="critical")
    own = await browser().see(path(severe))
    assert len(own.all("input", "#covered")) == 2
    other = await browser(name="bob").see(path(severe))
    assert len(other.all("input", "#covered")) == 3
