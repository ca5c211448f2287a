"""Whatever fails is a page with a cause and a way on, in the reader's language."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from loragate_server.console.wording import console_wording
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import Opens

Records = Callable[..., Verdict]


@pytest.mark.parametrize("language", REPORT.languages)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/audits/unknown", 404),
        ("GET", "/audits/%3Cscript%3E", 404),
        ("GET", "/audits/unknown/report", 404),
        ("GET", "/audits/", 404),
        ("GET", "/verdicts?page_token=x", 400),
    ],
)
async def test_a_failure_is_a_page(
    method: str, path: str, status: int, language: str, browser: Opens
) -> None:
    page = await browser(language=language).see(path, status=status, method=method)
    assert page.text("h1") == console_wording(language)(f"error.title_{status}")
    assert page.all("html") == [{"lang": language}]
    assert "/console/" in page.links("main")
    assert "script" not in {tag for tag, _ in page.elements}


async def test_an_action_that_is_not_there_is_a_page_too(browser: Opens, record: Records) -> None:
    verdict = record()
    page = await browser().see(f"/audits/{verdict.decision_id}")
    answer = await browser().send("/verdicts", page)
    assert answer.status == 403  # the token of the form is for another address


@pytest.mark.parametrize("language", REPORT.languages)
async def test_a_database_that_is_gone_is_told(
    language: str, browser: Opens, record: Records, tmp_path: Path
) -> None:
    verdict = record()
    (tmp_path / "loragate.sqlite3").unlink()
    for path in ("/", "/verdicts", f"/audits/{verdict.decision_id}", "/statistics"):
        page = await browser(language=language).see(path, status=503)
        assert page.text("h1") == console_wording(language)("error.title_503")


async def test_a_mistake_of_the_server_tells_strangers_nothing(
    browser: Opens,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(recorder, "search", fail)
    page = await browser().see("/verdicts", status=500)
    assert "hunter2" not in page.source
    assert "hunter2" in caplog.text
    assert "Content-Security-Policy" in page.headers


async def test_nobody_sees_a_page_without_a_name(browser: Opens, record: Records) -> None:
    verdict = record()
    stranger = browser(group="nobody")
    for path in ("/", "/verdicts", f"/audits/{verdict.decision_id}", "/concepts", "/nothing"):
        answer = await stranger.ask(path)
        assert answer.status == 403
        assert verdict.decision_id not in await answer.text()
