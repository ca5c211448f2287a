"""The console in a real browser: for every eye, at every size, in both languages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

from testkit.lanes import daily  # noqa: E402
from tests.e2e.console_stack import (  # noqa: E402
    AXE,
    SEVERE,
    Console,
    ask,
    axe,
    chromium,
    fill,
    running_console,
)

LANGUAGES = ("en", "ja")

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.skipif(
        chromium() is None,
        reason="chromium is missing; scripts/install_test_tools.sh installs it",
    ),
]


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with running_console(tmp_path_factory.mktemp("console")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_complaints(console: Console) -> Iterator[None]:
    """Every page keeps to its own policy, in every test."""
    console.complaints.clear()
    yield
    assert console.complaints == []


@pytest.fixture(scope="module")
def suspect(console: Console) -> str:
    """A decision that waits for two people; tests leave its review open."""
    return ask(console, "learned-bomb")[2]


@pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is missing; scripts/install_test_tools.sh installs it"
)
@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("ja", "dark")])
def test_axe_finds_nothing_serious_on_any_page(
    console: Console, suspect: str, language: str, scheme: str
) -> None:
    page = console.person("alice", language=language, color_scheme=scheme)
    ask(console, SEVERE, 0.9)
    reviewed = ask(console, SEVERE)[2]  # has several uses, and other shades in its heat map
    page.goto(f"/console/audits/{reviewed}")
    if page.locator("#action-approve").count():
        fill(page, "approve", "One of two.")
    found: list[str] = []
    for path in (
        "", "verdicts", "verdicts?adapter=x", f"audits/{suspect}", f"audits/{reviewed}", "concepts",
        "verdicts?severity=high&degree=x", "concepts/robot-face", "trends", "trends?since=x",
        "statistics", "statistics?since=x", "nothing",
    ):  # fmt: skip
        page.goto(f"/console/{path}")
        assert page.locator("html").get_attribute("lang") == language
        found += [f"{path}: {one}" for one in axe(page)]
    # The report forbids all scripts, those of the test included; its text is the same elsewhere.
    report = page.context.request.get(f"/console/audits/{suspect}/report?language={language}")
    page.goto("about:blank")
    page.set_content(report.text())
    found += [f"report: {one}" for one in axe(page)]
    assert found == []
    page.context.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_pages_can_be_read_at_twice_and_four_times_the_size(
    console: Console, suspect: str, language: str
) -> None:
    paths = ("", "verdicts", f"audits/{suspect}", "concepts", "trends", "statistics")
    for width in (640, 390, 320):
        view = {"width": width, "height": 480}
        page = console.person("alice", language=language, viewport=view)
        for path in paths:
            page.goto(f"/console/{path}")
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{path} is {wide} pixels wide at {width}"
        page.context.close()


@pytest.mark.parametrize(
    ("language", "scheme", "width"),
    daily(
        ("en", "light", 1200),
        ("ja", "dark", 390),
        of=[(*look, width) for look in (("en", "light"), ("ja", "dark")) for width in (1200, 390)],
    ),
)
def test_trends_are_drawn_in_the_colours_and_the_size_of_the_window(
    console: Console, suspect: str, language: str, scheme: str, width: int
) -> None:
    view = {"width": width, "height": 900}
    page = console.person("alice", language=language, color_scheme=scheme, viewport=view)
    page.goto("/console/trends", wait_until="networkidle")
    size = "wide" if width > 640 else "narrow"
    for image in page.locator("figure img").all():
        drawn = image.evaluate("one => one.complete && one.naturalWidth > 0")
        assert drawn, "the picture is not shown"
        chosen = image.evaluate("one => one.currentSrc")
        assert f"scheme={scheme}&size={size}" in chosen
    page.locator("summary").first.click()
    assert page.locator("table").first.is_visible()
    page.context.close()


@pytest.mark.parametrize("language", daily("en", of=LANGUAGES))
def test_the_picture_of_a_severe_concept_is_blurred_until_its_box_is_checked(
    console: Console, suspect: str, language: str
) -> None:
    page = console.person("alice", language=language)
    page.goto(f"/console/audits/{suspect}")
    picture, box = page.locator(".veil img").first, page.locator(".veil input").first
    blurred = "one => getComputedStyle(one).filter"
    assert "blur" in picture.evaluate(blurred)
    box.focus()
    page.keyboard.press("Space")
    assert picture.evaluate(blurred) == "none"
    picture.click()
    assert "blur" in picture.evaluate(blurred)
    page.context.close()


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_queue_is_a_card_for_each_row_on_a_telephone(
    console: Console, suspect: str, language: str
) -> None:
    view = {"width": 390, "height": 844}
    page = console.person("alice", language=language, viewport=view)
    page.goto("/console/")
    assert page.locator("tbody tr").first.is_visible()
    for region in page.locator(".scroll").all():
        assert region.evaluate("one => one.scrollWidth <= one.clientWidth"), "it scrolls sideways"
    assert axe(page) == []
    page.locator(f"table a[href$='{suspect}']").click()
    assert axe(page) == []
    page.context.close()


@pytest.mark.parametrize("language", daily("en", of=LANGUAGES))
def test_what_the_filters_show_can_be_kept_as_a_file(
    console: Console, suspect: str, language: str
) -> None:
    page = console.person("alice", language=language)
    page.goto("/console/verdicts")
    page.locator("#severity").select_option("high")
    page.locator("#degree").fill("1")
    page.locator("#concept").fill("bomb")
    page.locator("form[role=search] button").click()
    assert page.locator("tbody tr").count() > 0
    for kind in ("csv", "json"):
        with page.expect_download() as download:
            page.locator(f".exports a[href*='.{kind}?']").click()
        assert suspect in Path(download.value.path()).read_text("utf-8-sig")
    page.context.close()
