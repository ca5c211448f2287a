"""Every page: language, landmarks, headings, headers, and names that strangers chose."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from loragate_server.access.proxy import ProxyDoor
from loragate_server.console.wording import console_wording
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import HOSTILE, Opens, evidence, suspected

PAGES = ("/", "/verdicts", "/audits/{id}", "/concepts", "/concepts/bomb", "/statistics")
TITLES = ("queue.title", "verdicts.title", "", "concepts.title", "", "pilot.title")
Records = Callable[..., Verdict]


@pytest.mark.parametrize("language", REPORT.languages)
@pytest.mark.parametrize(("path", "title"), list(zip(PAGES, TITLES, strict=True)))
async def test_a_page_has_landmarks_one_heading_and_its_language(
    path: str, title: str, language: str, browser: Opens, record: Records
) -> None:
    here = path.format(id=record().decision_id)
    page = await browser(language=language).see(here)
    assert page.all("html") == [{"lang": language}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    if title:
        assert page.text("h1") == console_wording(language)(title)
    assert page.all("a")[0]["href"] == "#content"
    assert page.all("main")[0]["id"] == "content"
    other = "ja" if language == "en" else "en"
    switched = await browser(language=language).see(f"{here}?language={other}")
    assert switched.all("html") == [{"lang": other}]
    assert {one["hreflang"] for one in page.all("a", "header") if "hreflang" in one} == {"en", "ja"}


@pytest.mark.parametrize("path", PAGES)
async def test_everything_in_a_page_comes_from_the_server_and_nothing_runs(
    path: str, browser: Opens, record: Records
) -> None:
    page = await browser().see(path.format(id=record().decision_id))
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "style", "iframe", "object", "embed", "base"}
    for tag, facts in page.elements:
        assert not any(name == "style" or name.startswith("on") for name in facts), (tag, facts)
        for name in ("href", "src", "action"):
            assert (facts.get(name) or "/").startswith(("/console/", "#", "/")), (tag, facts)
            assert not (facts.get(name) or "").startswith("//")
    for facts in page.all("th"):
        assert facts.get("scope"), "a head of a table has no scope"


async def test_a_choice_of_language_is_remembered(browser: Opens) -> None:
    reader = browser(language="ja-JP,ja;q=0.9,en;q=0.8")
    assert (await reader.see("/")).all("html") == [{"lang": "ja"}]
    answer = await reader.ask("/?language=en")
    cookie = answer.cookies["loragate_language"]
    assert (cookie.value, cookie["path"], cookie["httponly"]) == ("en", "/console", True)
    assert (await reader.see("/")).all("html") == [{"lang": "en"}]


@pytest.mark.parametrize(
    ("preferred", "language"),
    [("fr", "en"), ("en;q=0.5, ja;q=0.7", "ja"), ("*", "en"), ("", "en"), ("ja;q=2", "en"),
     ("JA", "ja"), ("ja;q=0", "en"), ("en-GB,ja;q=0.9", "en"), ("," * 900, "en")],
)  # fmt: skip
async def test_the_browser_s_preference_counts(
    preferred: str, language: str, browser: Opens
) -> None:
    page = await browser(language=preferred).see("/?language=klingon")
    assert page.all("html") == [{"lang": language}]


@pytest.mark.parametrize("language", REPORT.languages)
async def test_hostile_names_are_shown_and_never_interpreted(
    language: str, browser: Opens, record: Records
) -> None:
    found = evidence(suspected(HOSTILE, category=HOSTILE, severity="low"), base_model=HOSTILE)
    verdict = record(found, service=HOSTILE, tenant=HOSTILE)
    reader = browser(language=language, name="<b>eve</b>")
    for path in ("/", "/verdicts", f"/audits/{verdict.decision_id}", "/concepts/bomb"):
        page = await reader.see(path)
        assert "script" not in {tag for tag, _ in page.elements}
        assert "b" not in {tag for tag, _ in page.elements}
        assert "\u202e" not in page.source
        assert "<b>eve</b>" in page.text("header")
        if path != "/concepts/bomb":
            assert "<script>alert(1)</script>" in page.text()
            assert "{{7*7}}" in page.text()


async def test_the_page_one_is_on_is_marked(browser: Opens, record: Records) -> None:
    page = await browser().see("/concepts/bomb")
    [current] = [one for one in page.all("a", "nav") if one.get("aria-current") == "page"]
    assert current["href"] == "/console/concepts"


async def test_who_has_signed_in_here_can_sign_out_by_a_form_of_their_own(
    browser: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not (await browser().see("/")).all("form", "header")  # that is for the proxy
    monkeypatch.setattr(ProxyDoor, "signs_out", True)
    page = await browser().see("/")
    [form] = page.all("form", "header")
    assert (form["method"], form["action"]) == ("post", "/console/logout")
    [token] = page.all("input", "header")
    assert token["name"] == "csrf"
    assert token["value"]
    assert page.text("button") == "Sign out"


async def test_style_sheets_may_be_kept_and_change_their_names(browser: Opens) -> None:
    page = await browser().see("/")
    sheets = [one["href"] or "" for one in page.all("link") if one["rel"] == "stylesheet"]
    assert len(sheets) == 2
    for sheet in sheets:
        answer = await browser().ask(sheet.removeprefix("/console"))
        assert answer.status == 200
        assert answer.content_type == "text/css"
        assert "immutable" in answer.headers["Cache-Control"]
    await browser().see("/static/console-0000000000000000.css", status=404)
    await browser().see("/static/..%2Fapp.py", status=404)
