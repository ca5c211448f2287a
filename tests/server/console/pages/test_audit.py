"""One audit: what the page shows, the report beside it, and who may decide about it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from loragate_server.console.wording import console_wording
from loragate_server.record.chain import verify_log
from loragate_server.record.reviews.review import ReviewAction, ReviewState
from loragate_server.record.reviews.reviews import Reviews
from loragate_server.record.verdict import Verdict
from loragate_server.report.render import render
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import HOSTILE, Browser, Opens, evidence, suspected
from tests.server.console.pages.reading import Page

Records = Callable[..., Verdict]
SOON = (datetime.now(UTC) + timedelta(days=7)).date().isoformat()
SEVERE = evidence(suspected(severity="critical"))


def path(verdict: Verdict) -> str:
    return f"/audits/{verdict.decision_id}"


async def decide(browser: Browser, verdict: Verdict, **fields: str) -> tuple[int, str]:
    """Opens the page, fills in the form, and sends it; status and where it leads."""
    page = await browser.see(path(verdict))
    typed = {"action": "approve", "reason": "Seen.", "expires": SOON, **fields}
    answer = await browser.send(path(verdict), page, **typed)
    return answer.status, answer.headers.get("Location", "")


@pytest.mark.parametrize("language", REPORT.languages)
async def test_an_audit_shows_what_the_report_shows(
    language: str, browser: Opens, record: Records
) -> None:
    verdict = record()
    page = await browser(language=language).see(path(verdict))
    report = render(verdict, language)
    for section in ("found", "remedy", "reasons", "heat", "all", "limits", "facts"):
        [whole] = re.findall(rf'<section id="{section}">.*?</section>', report, re.DOTALL)
        assert whole in page.source, section
    assert [one["src"] for one in page.all("img")] == []
    assert verdict.decision_id in page.text("#facts")


@pytest.mark.parametrize("language", REPORT.languages)
async def test_the_report_is_a_file_of_its_own_that_may_show_its_style_and_nothing_else(
    language: str, browser: Opens, record: Records
) -> None:
    verdict = record()
    page = await browser().see(path(verdict))
    [link] = [one for one in page.links(".beside") if one.endswith(f"report?language={language}")]
    answer = await browser().ask(link.removeprefix("/console"))
    assert await answer.text() == render(verdict, language)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("sandbox; default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert f"{verdict.decision_id}-{language}.html" in answer.headers["Content-Disposition"]
    assert answer.headers["Cache-Control"] == "no-store"


async def test_an_approval_is_in_force_and_is_told(
    browser: Opens, record: Records, reviews: Reviews
) -> None:
    verdict = record()
    status, target = await decide(browser(), verdict, reason="  Licensed.\r\nTicket 7. ")
    assert status == 303
    case = reviews.case(verdict.decision_id)
    assert case.state is ReviewState.APPROVED
    [event] = case.events
    assert (event.reviewer, event.reason) == ("alice", "Licensed.\nTicket 7.")
    assert event.expires_at == datetime.fromisoformat(SOON).replace(tzinfo=UTC) + timedelta(days=1)
    page = await browser().see(target.removeprefix("/console"))
    [status_line] = [one for one in page.all("div") if one.get("role") == "status"]
    assert status_line["class"] == "done"
    assert "alice approved" in page.text(".done")
    japanese = await browser(language="ja").see(target.removeprefix("/console"))
    assert "登録しました。alice：承認" in japanese.text(".done")
    assert not (await browser().see(f"{path(verdict)}?done=1")).text(".done")


async def test_severe_concepts_need_two_different_people(
    browser: Opens, record: Records, reviews: Reviews
) -> None:
    verdict = record(SEVERE)
    assert "two different people" in (await browser().see(path(verdict))).text("#review")
    assert (await decide(browser(), verdict))[0] == 303
    own = await browser().see(path(verdict))
    assert "You have approved already" in own.text("#review")
    assert [one["value"] for one in own.all("input") if one.get("type") == "radio"] == ["reject"]
    again = {"action": "approve", "reason": "Again.", "expires": SOON}
    again["use"] = own.form("act")["seen"].partition(":")[0]
    assert (await browser().send(path(verdict), own, **again)).status == 403
    assert reviews.case(verdict.decision_id).state is ReviewState.AWAITING_SECOND
    assert (await decide(browser(name="bob"), verdict))[0] == 303
    assert reviews.case(verdict.decision_id).state is ReviewState.APPROVED


async def test_a_viewer_sees_no_form_and_is_refused_with_one(
    browser: Opens, record: Records, reviews: Reviews
) -> None:
    verdict = record()
    page = await browser(group="v", name="vera").see(path(verdict))
    assert not page.all("textarea")
    assert "Reviewers and administrators decide" in page.text("#review")
    form = await browser(name="vera").see(path(verdict))  # the same person, while still a reviewer
    answer = await browser(group="v", name="vera").send(
        path(verdict), form, action="approve", reason="Mine.", expires=SOON
    )
    assert answer.status == 403
    assert "This needs the role reviewer" in await answer.text()
    assert reviews.case(verdict.decision_id).events == ()


async def test_a_form_that_is_sent_twice_counts_once(
    browser: Opens, record: Records, reviews: Reviews
) -> None:
    verdict = record(SEVERE)
    page = await browser().see(path(verdict))
    typed = {"action": "reject", "reason": "Looks like her.", "expires": SOON}
    assert (await browser().send(path(verdict), page, **typed)).status == 303
    answer = await browser().send(path(verdict), page, **typed)
    assert answer.status == 409
    text = await answer.text()
    assert "Nothing was recorded." in text
    assert "sent twice" in text
    assert len(reviews.case(verdict.decision_id).events) == 1


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"Origin": "https://evil.example"}, {}),
        ({"Origin": "null"}, {}),
        ({"Sec-Fetch-Site": "cross-site"}, {}),
        ({}, {"csrf": "x"}),
        ({}, {"csrf": ""}),
    ],
)
async def test_a_form_of_another_site_is_refused(
    headers: dict[str, str],
    fields: dict[str, str],
    browser: Opens,
    record: Records,
    reviews: Reviews,
) -> None:
    verdict = record()
    page = await browser().see(path(verdict))
    data = {**page.form("act"), "action": "approve", "reason": "x", "expires": SOON, **fields}
    sent = {"Origin": "http://localhost:8000", **headers}
    answer = await browser().ask(path(verdict), method="POST", data=data, headers=sent)
    assert answer.status == 403
    assert reviews.case(verdict.decision_id).events == ()


@pytest.mark.parametrize("language", REPORT.languages)
@pytest.mark.parametrize(
    ("typed", "status"),
    [
        ({"reason": "   "}, 400),
        ({"reason": "x" * 2001}, 400),
        ({"expires": ""}, 400),
        ({"expires": "tomorrow"}, 400),
        ({"expires": "2020-01-01"}, 400),
        ({"expires": "9999-12-31"}, 400),
        ({"action": ""}, 400),
        ({"action": "delete"}, 400),
        ({"action": "reopen"}, 403),
        ({"seen": "{key}:1"}, 409),
        ({"seen": "0" * 64 + ":0"}, 409),
        ({"seen": " ".join(["0" * 64 + ":0"] * 600)}, 400),
        ({"use": ""}, 409),
    ],
)
async def test_a_form_that_cannot_be_obeyed_comes_back_as_it_was(
    typed: dict[str, str],
    status: int,
    language: str,
    browser: Opens,
    record: Records,
    reviews: Reviews,
) -> None:
    verdict = record()
    reader = browser(language=language)
    form = await reader.see(path(verdict))
    fields = {"action": "approve", "reason": f"Because {HOSTILE}", "expires": SOON, **typed}
    if "seen" in fields:
        fields["seen"] = fields["seen"].replace("{key}", form.form("act")["use"])
    answer = await reader.send(path(verdict), form, **fields)
    page = Page(await answer.text(), answer.headers)
    assert answer.status == status
    [alert] = [one for one in page.all("div") if one.get("role") == "alert"]
    assert alert["class"] == "problem"
    if "reason" not in typed:
        assert "Because <script>alert(1)</script>" in page.text("textarea")
    assert reviews.case(verdict.decision_id).events == ()


async def test_an_approval_may_last_to_the_last_day_that_the_form_offers(
    browser: Opens, record: Records, reviews: Reviews
) -> None:
    verdict = record()
    page = await browser().see(path(verdict))
    [field] = [one for one in page.all("input") if one.get("name") == "expires"]
    assert (await decide(browser(), verdict, expires=field["max"] or ""))[0] == 303
    [event] = reviews.case(verdict.decision_id).events
    assert event.expires_at is not None
    assert event.expires_at - event.reviewed_at <= reviews.rules.longest_approval
    too_late = datetime.fromisoformat(field["max"] or "") + timedelta(days=1)
    other = record(evidence(suspected(), sha256="b" * 64))
    assert (await decide(browser(), other, expires=too_late.date().isoformat()))[0] == 400


async def test_an_admin_reopens_and_a_reviewer_cannot(
    browser: Opens, record: Records, reviews: Reviews
) -> None:
    verdict = record()
    assert (await decide(browser(), verdict, action="reject"))[0] == 303
    settled = await browser().see(path(verdict))
    assert not settled.all("textarea")
    assert "An administrator can reopen it" in settled.text("#review")
    assert (await decide(browser(group="a", name="root"), verdict, action="reopen"))[0] == 303
    case = reviews.case(verdict.decision_id)
    assert case.state is ReviewState.OPEN
    page = await browser().see(path(verdict))
    shown = page.text(["#review", "tbody"][1])
    assert shown.index("rejected") < shown.index("reopened")


async def test_an_approval_can_be_withdrawn_by_rejecting(
    browser: Opens, record: Records, approve: Callable[..., None], reviews: Reviews
) -> None:
    verdict = record()
    approve(verdict)
    page = await browser().see(path(verdict))
    assert "The approval lapses on" in page.text("#review")
    assert "can be withdrawn by rejecting" in page.text("#review")
    assert (await decide(browser(), verdict, action="reject"))[0] == 303
    assert reviews.case(verdict.decision_id).state is ReviewState.REJECTED


async def test_reviewers_see_what_was_looked_at_if_it_was_another_decision(
    browser: Opens, record: Records, approve: Callable[..., None]
) -> None:
    first, second = record(SEVERE), record(SEVERE)
    approve(first)
    page = await browser().see(path(second))
    assert f"/console{path(first)}" in page.links("#review")


@pytest.mark.parametrize("language", REPORT.languages)
async def test_what_nobody_can_settle_has_no_form_and_says_why(
    language: str, browser: Opens, record: Records
) -> None:
    learned = evidence(suspected(family_p_value=0.001, p_value=0.0001))
    for verdict in (record(learned), record(dry_run=True)):
        page = await browser(group="a", language=language).see(path(verdict))
        assert not page.all("textarea")
        assert page.text("#review")


async def test_every_act_stands_in_the_decision_log(
    browser: Opens, record: Records, tmp_path: Path
) -> None:
    verdict = record()
    await decide(browser(), verdict)
    await decide(browser(group="a", name="root"), verdict, action="reopen")
    log = tmp_path / "decisions.jsonl"
    assert log.read_text().count('"kind":"review"') == 2
    check = verify_log(log)
    assert check.intact
    assert check.lines == 3


async def test_nothing_is_recorded_where_the_log_cannot_be_written(
    browser: Opens, record: Records, reviews: Reviews, tmp_path: Path
) -> None:
    verdict = record()
    log = tmp_path / "decisions.jsonl"
    log.unlink()
    log.mkdir()
    page = await browser().see(path(verdict))
    answer = await browser().send(
        path(verdict), page, action="approve", reason="Seen.", expires=SOON
    )
    assert answer.status == 503
    assert "This does not work at present" in await answer.text()
    assert reviews.case(verdict.decision_id).events == ()


@pytest.mark.parametrize("language", REPORT.languages)
async def test_what_reviewers_write_is_shown_and_never_interpreted(
    language: str, browser: Opens, record: Records
) -> None:
    verdict = record(SEVERE)
    status, target = await decide(browser(name="<i>eve</i>"), verdict, reason=HOSTILE)
    assert status == 303
    page = await browser(language=language).see(target.removeprefix("/console"))
    assert not {"script", "i"} & {tag for tag, _ in page.elements}
    assert "<i>eve</i>" in page.text("#review")
    assert "<script>alert(1)</script>" in page.text("#review")
    assert "\u202e" not in page.source


async def test_the_second_approver_sees_the_first_one_and_the_earlier_end_counts(
    browser: Opens, record: Records
) -> None:
    verdict = record(SEVERE)
    later = (datetime.now(UTC) + timedelta(days=20)).date().isoformat()
    await decide(browser(), verdict)
    _, target = await decide(browser(name="bob"), verdict, expires=later)
    page = await browser(name="carol").see(target.removeprefix("/console"))
    shown = page.text("#review")
    assert shown.index("alice approved") < shown.index("bob approved")
    end = datetime.fromisoformat(SOON) + timedelta(days=1)
    assert f"The approval lapses on {end:%Y-%m-%d} 00:00:00 UTC" in shown


@pytest.mark.parametrize("language", REPORT.languages)
async def test_the_head_of_an_older_decision_follows_the_ruling_and_its_report_stays(
    language: str, browser: Opens, record: Records, reviews: Reviews
) -> None:
    wording = console_wording(language)
    verdict = record()
    reader = browser(language=language)
    before = await reader.see(path(verdict))
    for position, (action, words) in enumerate(
        [(ReviewAction.APPROVE, "approved"), (ReviewAction.REJECT, "rejected")]
    ):
        reviews.act(
            verdict.decision_id, action, reviewer="bob", reason="Seen.", position=position,
            expires_at=datetime.now(UTC) + timedelta(days=3),
        )  # fmt: skip
        page = await reader.see(path(verdict))
        assert wording(f"ruled.words_{words}") in page.text(".verdict")
        assert page.text("h1") != before.text("h1")
    reviews.act(
        verdict.decision_id, ReviewAction.REOPEN, reviewer="root", reason="Again.", position=2,
        admin=True,
    )  # fmt: skip
    assert (await reader.see(path(verdict))).text("h1") == before.text("h1")
    report = await (await reader.ask(f"{path(verdict)}/report")).text()
    assert before.text("h1") in report
