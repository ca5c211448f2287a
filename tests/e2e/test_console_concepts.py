"""People change the concept library in a real browser, and the server audits by it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

playwright = pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Page  # noqa: E402

from loragate_server.config.schema import EMBEDDED_LIBRARY  # noqa: E402
from testkit.waiting import eventually  # noqa: E402
from tests.e2e.console_stack import (  # noqa: E402
    AXE,
    Console,
    ask,
    axe,
    chromium,
    running_console,
)

LIMIT_S = 120.0
EDITORS = "reviewers,editors"

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.skipif(
        chromium() is None,
        reason="chromium is missing; scripts/install_test_tools.sh installs it",
    ),
]


@pytest.fixture(scope="module")
def console(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    with running_console(tmp_path_factory.mktemp("console"), editing=True) as running:
        yield running


@pytest.fixture(autouse=True)
def no_complaints(console: Console) -> Iterator[None]:
    console.complaints.clear()
    yield
    assert console.complaints == []


def pictures(*colours: str) -> list[dict[str, object]]:
    """Files as somebody chooses them."""
    found: list[dict[str, object]] = []
    for number, colour in enumerate(colours):
        written = io.BytesIO()
        Image.new("RGB", (96, 96), colour).save(written, "JPEG")
        name = f"view {number}.jpg"
        found.append({"name": name, "mimeType": "image/jpeg", "buffer": written.getvalue()})
    return found


def in_force(page: Page) -> bool:
    """Looks at the page of a change again."""
    page.reload()
    state = page.get_by_role("status").inner_text()
    assert "fail" not in state, page.locator(".events").inner_text()
    return "in force" in state


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is missing")
def test_two_people_add_a_severe_concept_and_audits_go_by_it(console: Console) -> None:
    page = console.person("alice", EDITORS, viewport={"width": 390, "height": 844})
    page.goto("/console/concepts")
    page.get_by_role("link", name="Add a concept").click()
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#concept_id").fill("teal-thing")
    page.locator("#name").fill("Teal thing")
    page.locator("#name-ja").fill("青緑のもの")
    page.locator("#category").fill("brand")
    page.locator("#severity").select_option("critical")
    page.locator("#hand-0").fill("studio")
    page.locator("#pictures-0").set_input_files(pictures("teal", "#008090"))  # type: ignore[arg-type]
    page.locator("#reason").fill("Campaign 12.")
    page.get_by_role("button", name="Propose").click()
    assert "waiting for a second person" in page.get_by_role("status").inner_text()
    assert axe(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    other = console.person("bob", EDITORS)
    other.goto(page.url)
    assert "blur" in other.locator(".veil img").first.evaluate(
        "one => getComputedStyle(one).filter"
    )
    other.locator("#action-approve").check()
    other.locator("#reason").fill("It is ours.")
    other.get_by_role("button", name="Record the decision").click()
    eventually(lambda: in_force(other), LIMIT_S)

    japanese = console.person("vera", "viewers", "ja")
    japanese.goto("/console/concepts/teal-thing")
    assert japanese.get_by_role("heading", level=1).inner_text() == "青緑のもの"
    assert ask(console, "learned-bomb")[2]
    log = console.server.log.parent / "decisions.jsonl"
    notes = [json.loads(line).get("note", {}) for line in log.read_text().splitlines()]
    steps = [one["change"]["event"] for one in notes if one.get("code") == "concept_change"]
    assert [(one["step"], one["person"]) for one in steps] == [
        ("propose", "alice"), ("approve", "bob"), ("applied", ""),
    ]  # fmt: skip
    for one in (page, other, japanese):
        one.context.close()


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is missing")
@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("ja", "dark")])
def test_axe_finds_nothing_serious_on_the_pages_of_changes(
    console: Console, language: str, scheme: str
) -> None:
    page = console.person("alice", EDITORS, language, color_scheme=scheme)
    found: list[str] = []
    for path in ("changes", "changes/new", "changes/new?concept=bomb", "concepts/bomb"):
        page.goto(f"/console/{path}")
        assert page.locator("html").get_attribute("lang") == language
        found += [f"{path}: {one}" for one in axe(page)]
    assert found == []
    page.context.close()


def test_the_library_on_disk_has_what_the_console_says(console: Console) -> None:
    manifest = console.server.log.parent / "library" / "library.yaml"
    assert "teal-thing" in manifest.read_text("utf-8")
    assert "青緑のもの" in manifest.read_text("utf-8")
    assert "teal-thing" not in Path(EMBEDDED_LIBRARY / "library.yaml").read_text("utf-8")
