"""Verdicts as a file: what stands in it, what spreadsheets make of it, and what is refused."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections.abc import Callable
from urllib.parse import quote

import pytest
from aiohttp import ClientError, web
from aiohttp.test_utils import TestClient
from aiohttp.typedefs import Handler

from loragate_server.console.pages import export as exporting
from loragate_server.console.pages.export import EXPORTS
from loragate_server.console.pages.export_rows import COLUMNS
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.recorder import MAX_PAGE_SIZE, Recorder
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import Browser, Opens, evidence, suspected

Records = Callable[..., Verdict]
FORMULA = '=HYPERLINK("https://evil.example","click")'


async def rows(browser: Browser, query: str = "") -> list[dict[str, str]]:
    answer = await browser.ask(f"/verdicts/export.csv{query}")
    assert answer.status == 200
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="loragate-')
    text = (await answer.read()).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


async def test_a_file_holds_what_the_filters_show_in_the_same_order(
    browser: Opens, record: Records
) -> None:
    made = [record(tenant="a") for _ in range(MAX_PAGE_SIZE + 3)]
    record(tenant="b")
    page = await browser().see("/verdicts?tenant=a")
    links = page.links(".exports")
    assert [link.partition("?")[0] for link in links] == [
        "/console/verdicts/export.csv", "/console/verdicts/export.json",
    ]  # fmt: skip
    wanted = [one.decision_id for one in reversed(made)]
    assert [one["decision_id"] for one in await rows(browser(), "?tenant=a")] == wanted
    answer = await browser().ask(links[1].removeprefix("/console"))
    assert answer.content_type == "application/json"
    found = await answer.json()
    assert [one["decision_id"] for one in found] == wanted
    assert list(found[0]) == list(COLUMNS)
    assert found[0]["concepts"] == ["star-captain"]
    assert found[0]["degrees"] == [21.0]


@pytest.mark.parametrize(
    "text", [FORMULA, "+1", "-1+cmd|' /C calc'!A0", "@SUM(1)", "\t=1", "\r=1", " =1", "\ufeff=1"]
)
async def test_no_cell_is_a_formula_to_a_spreadsheet(
    text: str, browser: Opens, record: Records
) -> None:
    record(service=text, tenant=text, called=text)
    [found] = await rows(browser())
    for column in ("service", "tenant", "names"):
        assert found[column].startswith("'"), found[column]
    answer = await browser().ask("/verdicts/export.json")
    assert json.loads(await answer.text())[0]["service"] == text, "programs get it as it is"


async def test_letters_that_no_encoding_has_and_no_numbers_make_a_sound_file(
    browser: Opens, record: Records
) -> None:
    odd = suspected("\ud800", score=float("nan"), degree=float("inf"))
    record(evidence(odd), service='a\ud800,"b"\nc')
    assert len(await rows(browser())) == 1
    answer = await browser().ask("/verdicts/export.json")
    assert (await answer.json())[0]["degrees"] in ([None], [])


@pytest.mark.parametrize("kind", ["csv", "json"])
async def test_nothing_makes_a_sound_file_as_well(kind: str, browser: Opens) -> None:
    answer = await browser().ask(f"/verdicts/export.{kind}")
    text = (await answer.read()).decode("utf-8-sig")
    assert text.strip() == {"csv": ",".join(COLUMNS), "json": "[]"}[kind]


@pytest.mark.parametrize("language", REPORT.languages)
async def test_too_many_are_refused_and_none_is_left_out_silently(
    language: str, browser: Opens, record: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "MOST_EXPORTED", 3)
    for _ in range(4):
        record()
    page = await browser(language=language).see("/verdicts/export.csv", status=400)
    assert page.text(".problem")
    record(service="batch")
    assert len(await rows(browser(), "?service=batch")) == 1


async def test_filters_that_mean_nothing_give_no_file(browser: Opens, record: Records) -> None:
    page = await browser().see("/verdicts/export.json?degree=x", status=400)
    assert page.links(".problem") == ["#degree"]
    await browser().see("/verdicts/export.exe", status=404)


async def test_whoever_may_not_see_the_page_gets_no_file(browser: Opens, record: Records) -> None:
    record()
    assert (await browser("nobody").ask("/verdicts/export.csv")).status == 403
    assert (await browser("v").ask("/verdicts/export.csv")).status == 200


@pytest.mark.parametrize(
    "failure",
    [
        NoDecisionError(ErrorReason.DATABASE_UNAVAILABLE, "Gone.", remedy="Wait."),
        RuntimeError("by a mistake of ours"),
    ],
    ids=["database", "mistake"],
)
async def test_what_fails_on_the_way_breaks_the_file_off(
    failure: Exception,
    browser: Opens,
    record: Records,
    recorder: Recorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(MAX_PAGE_SIZE + 1):
        record()
    search, asked = recorder.search, 0

    def failing(*arguments: object) -> object:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise failure
        return search(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(recorder, "search", failing)
    answer = await browser().ask("/verdicts/export.csv")
    async with asyncio.timeout(30):
        with pytest.raises(ClientError):
            await answer.read()


async def test_a_request_that_is_ended_on_the_way_is_not_answered_twice(
    browser: Opens,
    record: Records,
    recorder: Recorder,
    client: TestClient[web.Request, web.Application],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(MAX_PAGE_SIZE + 1):
        record()
    search, asked, ended = recorder.search, 0, threading.Event()

    def slow(*arguments: object) -> object:
        nonlocal asked
        asked += 1
        if asked == 2:
            ended.wait(30)
        return search(*arguments)  # type: ignore[arg-type]

    @web.middleware
    async def limit(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            async with asyncio.timeout(1):
                return await handler(request)
        except TimeoutError:
            return web.Response(status=408)

    monkeypatch.setattr(recorder, "search", slow)
    monkeypatch.setattr(client.app, "_middlewares_handlers", ((limit, True),))
    monkeypatch.setattr(client.app, "_run_middlewares", True)
    answer = await browser().ask("/verdicts/export.json")
    async with asyncio.timeout(30):
        with pytest.raises(ClientError):
            await answer.read()
    ended.set()


async def test_exports_beyond_those_that_run_are_sent_away_for_a_while(
    browser: Opens, record: Records, client: TestClient[web.Request, web.Application]
) -> None:
    record()
    [console] = client.app._subapps if client.app else []
    places: asyncio.Semaphore = console[EXPORTS]
    async with places, places:
        answer = await browser().ask("/verdicts/export.csv")
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "10"
    assert len(await rows(browser())) == 1


async def test_the_name_of_a_person_is_a_filter(
    browser: Opens, record: Records, approve: Callable[..., None]
) -> None:
    first, second = record(), record(evidence(suspected(), sha256="b" * 64))
    approve(first, reviewer="Åsa <x>")
    approve(second, reviewer="bob")
    found = await rows(browser(), f"?reviewer={quote('Åsa <x>')}")
    assert [one["decision_id"] for one in found] == [first.decision_id]
