"""People review adapters in a real browser, and image services are answered accordingly."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api")

from loragate import Verdict  # noqa: E402
from testkit.lanes import daily  # noqa: E402
from tests.e2e.console_stack import (  # noqa: E402
    MILD,
    SEVERE,
    WORDS,
    Console,
    ask,
    chromium,
    fill,
    headers_of,
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


@pytest.mark.parametrize("language", daily("en", of=LANGUAGES))
def test_a_file_is_one_row_and_an_approval_lets_through_what_is_checked(
    console: Console, language: str
) -> None:
    name = "learned-father-christmas"
    uses = {strength: ask(console, name, strength) for strength in (1.0, 0.9)}
    assert {verdict for verdict, *_ in uses.values()} == {Verdict.REVIEW}
    page = console.person("alice", "admins", language)
    page.goto("/console/")
    row = page.locator(f"tr:has(a[href$='{uses[0.9][2]}'])")
    assert uses[1.0][2] not in page.content(), "it stands in the queue once"
    row.locator("a").first.click()
    boxes = page.locator("#covered input[type=checkbox]")
    assert boxes.count() == 2
    page.locator("#covered label", has_text=" 1," if language == "en" else " 1、").click()
    fill(page, "approve", "At 0.9 alone.")
    page.get_by_role("status").wait_for()
    full, weaker = (row.inner_text() for row in page.locator(".uses tbody tr").all()[::-1])
    assert "alice" not in full
    states = [WORDS[language]["approved"], WORDS[language]["waiting"]]
    assert any(one in weaker for one in states)
    assert not any(one in full for one in states)
    assert ask(console, name)[0] is Verdict.REVIEW
    fill(page, "reject", "No licence.")
    page.get_by_role("status").wait_for()
    assert {ask(console, name, strength)[0] for strength in (1.0, 0.9)} == {Verdict.BLOCK}
    page.goto("/console/")
    assert uses[0.9][2] not in page.content()
    page.goto(f"/console/audits/{uses[0.9][2]}")
    fill(page, "reopen", "It was a test.")
    page.get_by_role("status").wait_for()
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
        fields = {"csrf": token, "seen": "0" * 64 + ":0", "action": "approve",
                  "reason": "Of another site.", "expires": "2026-12-31"}  # fmt: skip
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


def test_the_log_holds_all_of_it_and_verifies(console: Console) -> None:
    log = console.server.log.parent / "decisions.jsonl"
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds.count("review") >= 5
    command = [sys.executable, "-m", "loragate_server", "log", "verify", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
