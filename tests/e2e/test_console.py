"""People review adapters in a real browser, and image services are answered accordingly."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")

from playwright.sync_api import Page  # noqa: E402

from loragate import Verdict  # noqa: E402
from tests.e2e.console_stack import (  # noqa: E402
    ADAPTERS,
    MILD,
    SEVERE,
    Console,
    chromium,
    headers_of,
    running_console,
)

AXE = Path(__file__).parents[2] / "build" / "tools" / "node_modules" / "axe-core" / "axe.min.js"
LANGUAGES = ("en", "ja")
GRAVE = {"serious", "critical"}
WORDS = {
    "en": {
        "approve": "Approve:",
        "reject": "Reject:",
        "reopen": "Reopen:",
        "reason": "Reason",
        "send": "Record the decision",
        "waiting": "waiting for a second approval",
        "approved": "approved",
        "rejected": "rejected",
        "headline": "Reviewers have looked at this adapter and rejected its use.",
    },
    "ja": {
        "approve": "承認する",
        "reject": "却下する",
        "reopen": "再確認に戻す",
        "reason": "理由",
        "send": "登録する",
        "waiting": "2人目の承認待ち",
        "approved": "承認済み",
        "rejected": "却下済み",
        "headline": "このアダプターは、担当者が確認のうえ使用を却下しています。",
    },
}

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


def ask(console: Console, name: str) -> tuple[Verdict, str, str]:
    """What an image service is answered about an adapter: verdict, first reason and id."""
    with console.client() as client:
        result = client.audit_file(ADAPTERS / f"{name}.safetensors")
    return result.verdict, result.reasons[0].code, result.decision_id


def fill(page: Page, action: str, reason: str) -> None:
    """Fills in the form of a review by its labels, and sends it."""
    words = WORDS[page.locator("html").get_attribute("lang") or ""]
    page.get_by_label(words[action]).check()
    page.get_by_label(words["reason"], exact=True).fill(reason)
    page.get_by_role("button", name=words["send"]).click()


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_adapter_is_let_through_by_people_and_stopped_again(
    console: Console, language: str
) -> None:
    words, name = WORDS[language], {"en": SEVERE, "ja": MILD}[language]
    verdict, reason, decision_id = ask(console, name)
    assert (verdict, reason) == (Verdict.REVIEW, "concept_suspected")
    alice, bob, root = (
        console.person(who, group, language)
        for who, group in (("alice", "reviewers"), ("bob", "reviewers"), ("root", "admins"))
    )

    alice.goto("/console/")
    alice.locator(f"table a[href$='{decision_id}']").click()
    fill(alice, "approve", "Licensed, contract 17.")
    assert "alice" in alice.get_by_role("status").inner_text()
    if name == SEVERE:
        assert words["waiting"] in alice.locator("#review").inner_text()
        assert ask(console, name)[0] is Verdict.REVIEW
        bob.goto(alice.url)
        fill(bob, "approve", "確認しました。")
        assert "bob" in bob.get_by_role("status").inner_text()
    alice.reload()
    assert words["approved"] in alice.locator("#review").inner_text()
    assert ask(console, name)[:2] == (Verdict.ALLOW, "review_approved")

    root.goto(f"/console/audits/{decision_id}")
    fill(root, "reopen", "The licence was withdrawn.")
    assert ask(console, name)[:2] == (Verdict.REVIEW, "concept_suspected")

    bob.goto(f"/console/audits/{decision_id}")
    fill(bob, "reject", "No licence.")
    assert words["rejected"] in bob.locator("#review").inner_text()
    verdict, reason, blocked = ask(console, name)
    assert (verdict, reason) == (Verdict.BLOCK, "review_rejected")
    bob.goto(f"/console/audits/{blocked}")
    assert bob.get_by_role("heading", level=1).inner_text() == words["headline"]
    for page in (alice, bob, root):
        page.context.close()


def test_the_form_needs_no_mouse(console: Console, suspect: str) -> None:
    page = console.person("keyla", "reviewers")
    page.goto(f"/console/audits/{suspect}")
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.locator(":focus").get_attribute("id") == "content"
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.locator(":focus").get_attribute("name") == "action":
            break
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    assert page.locator(":checked").get_attribute("value") == "reject"
    page.keyboard.press("ArrowUp")
    assert page.locator(":checked").get_attribute("value") == "approve"
    page.keyboard.press("Tab")
    page.keyboard.type("Nothing of the kind in it.")
    for _ in range(10):
        page.keyboard.press("Tab")
        outline, tag = page.evaluate(
            "(one => [getComputedStyle(one).outlineStyle, one.tagName])(document.activeElement)"
        )
        assert outline == "solid", "the focus cannot be seen"
        if tag == "BUTTON":
            break
    page.keyboard.press("Enter")
    page.wait_for_url("**?done=*")
    assert "keyla approved" in page.get_by_role("status").inner_text()
    page.locator("#review").get_by_text("You have approved already").wait_for()
    page.context.close()


def test_a_viewer_cannot_approve(console: Console, suspect: str) -> None:
    page = console.person("vera", "viewers")
    page.goto(f"/console/audits/{suspect}")
    assert page.locator("#act").count() == 0
    form = console.person("vera")  # the same person, when she was still a reviewer
    form.goto(f"/console/audits/{suspect}")
    form.context.set_extra_http_headers(headers_of("vera", "viewers"))
    with form.expect_response("**/audits/*") as response:
        fill(form, "approve", "Mine.")
    assert response.value.status == 403
    assert form.get_by_role("heading", level=1).inner_text() == "You may not do this"
    page.reload()
    assert "vera" not in page.locator("#review").inner_text()
    for one in (page, form):
        one.context.close()


def test_a_form_that_is_sent_again_is_refused(console: Console, suspect: str) -> None:
    page = console.person("alice")
    page.goto(f"/console/audits/{suspect}")
    with page.expect_request(lambda request: request.method == "POST") as sent:
        fill(page, "reject", "Sent once.")
    request = sent.value
    headers = {**request.all_headers(), "origin": console.address}
    again = page.context.request.post(request.url, headers=headers, data=request.post_data)
    assert again.status == 409
    assert "Nothing was recorded" in again.text()
    page.reload()
    assert page.get_by_text("Sent once.").count() == 1
    page.context.close()
    root = console.person("root", "admins")  # leaves it as it was
    root.goto(f"/console/audits/{suspect}")
    fill(root, "reopen", "It was a test.")
    root.context.close()


def test_a_form_of_another_site_is_refused_even_with_a_token(
    console: Console, suspect: str
) -> None:
    page = console.person("alice")
    page.goto(f"/console/audits/{suspect}")
    token = page.locator("[name=csrf]").input_value()
    target = f"{console.address}/console/audits/{suspect}"
    with hostile_site(target, token) as address:
        page.goto(address)
        with page.expect_response(target) as response:
            page.click("button")
    assert response.value.status == 403
    page.goto(target)
    assert page.get_by_text("Of another site.").count() == 0
    page.context.close()


class hostile_site:  # noqa: N801
    """A page on another origin whose button sends a form to the console."""

    def __init__(self, target: str, token: str) -> None:
        fields = {"csrf": token, "position": "0", "action": "approve", "reason": "Of another site.",
                  "expires": "2026-12-31"}  # fmt: skip
        inputs = "".join(f'<input name="{k}" value="{v}">' for k, v in fields.items())
        body = f'<form method="post" action="{target}">{inputs}<button>Win</button></form>'

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(f"<link rel=icon href='data:,'>{body}".encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://localhost:{self._server.server_port}/"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.mark.skipif(
    not AXE.exists(), reason="axe-core is missing; scripts/install_test_tools.sh installs it"
)
@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("ja", "dark")])
def test_axe_finds_nothing_serious_on_any_page(
    console: Console, suspect: str, language: str, scheme: str
) -> None:
    page = console.person("alice", language=language, color_scheme=scheme)
    reviewed = ask(console, SEVERE)[2]  # has a history, and other shades in its heat map
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


def axe(page: Page) -> list[str]:
    """What axe-core calls serious or critical on a page."""
    page.evaluate(AXE.read_text())
    result = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}) at {[node['target'] for node in one['nodes']]}"
        for one in result["violations"]
        if one["impact"] in GRAVE
    ]


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


@pytest.mark.parametrize(("language", "scheme"), [("en", "light"), ("ja", "dark")])
@pytest.mark.parametrize("width", [1200, 390])
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


@pytest.mark.parametrize("language", LANGUAGES)
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


@pytest.mark.parametrize("language", LANGUAGES)
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


def test_the_log_holds_all_of_it_and_verifies(console: Console) -> None:
    log = console.server.log.parent / "decisions.jsonl"
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds.count("review") >= 5
    command = [sys.executable, "-m", "loragate_server", "log", "verify", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
