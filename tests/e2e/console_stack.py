"""A real server with its console, and real browsers in front of it, as a proxy would send them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from loragate import AuditClient, Verdict
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.testing import ServerProcess
from testkit.servers import forked_server
from tests.e2e.proxy_stack import free_ports

AXE = Path(__file__).parents[2] / "build" / "tools" / "node_modules" / "axe-core" / "axe.min.js"
GRAVE = {"serious", "critical"}
ADAPTERS = Path(__file__).parents[2] / "examples" / "adapters"
SEVERE, MILD = "learned-robot-face", "learned-jack-o-lantern"
"""Adapters whose concept is of high severity, and of medium."""

POLICY = """version: 1
mode: enforce
defaults:
  block_score: 100
  review_score: 4
"""
"""Whatever is found goes to a person."""

CONFIG = """
policy: {folder}/policy.yaml
console:
  enabled: true
  public_url: {address}
  auth: proxy
  proxy:
    trusted_networks: [127.0.0.1/32]
    secret_header: X-Proxy-Secret
    secret_file: {folder}/proxy-secret
  roles:
    viewer: [viewers]
    reviewer: [reviewers]
    admin: [admins]
    concept_editor: [editors]
  session_secret_file: {folder}/session-secret
"""
EDITING = """  edit_concepts: true
library: {folder}/library
"""


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

PROXY_SECRET = "what only the proxy knows"


def headers_of(name: str, group: str) -> dict[str, str]:
    """What the proxy says of somebody."""
    return {
        "X-Forwarded-User": name,
        "X-Forwarded-Groups": group,
        "X-Proxy-Secret": PROXY_SECRET,
    }


def chromium() -> str | None:
    """The browser on this machine."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


@dataclass(frozen=True)
class Console:
    """A server with its console, and a browser.

    Attributes:
        address: of the console's host, without a path.
        complaints: what browsers said about pages that broke a rule of theirs.
    """

    server: ServerProcess
    address: str
    browser: Browser
    complaints: list[str]

    def person(
        self, name: str, group: str = "reviewers", language: str = "en", **options: object
    ) -> Page:
        """An empty tab of somebody whom the proxy knows. Options are those of the browser."""
        context: BrowserContext = self.browser.new_context(
            base_url=self.address,
            locale={"en": "en-GB", "ja": "ja-JP"}[language],
            timezone_id="UTC",
            extra_http_headers=headers_of(name, group),
            **{"viewport": {"width": 1200, "height": 900}, **options},  # type: ignore[arg-type]
        )
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("console", lambda told: self._note(told.type, told.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def client(self) -> AuditClient:
        """The SDK, as an image service uses it."""
        return AuditClient(
            self.server.grpc, service="image-api", tenant="studio-1", on_unavailable="raise",
            timeout=120,
        )  # fmt: skip

    def _note(self, kind: str, text: str) -> None:
        # A page that answers 403 or 409 is what was asked for; that it is one is no complaint.
        if kind in ("error", "warning") and "the server responded with a status" not in text:
            self.complaints.append(text)


@contextmanager
def running_console(
    state: Path, policy: str = POLICY, *, editing: bool = False
) -> Iterator[Console]:
    """Starts a server and a browser; ends both.

    Args:
        state: an empty folder for everything that the server writes.
        policy: that it decides by.
        editing: whether concepts can be changed, in a copy of the library that ships.
    """
    [port] = free_ports(1)
    address = f"http://127.0.0.1:{port}"
    (state / "policy.yaml").write_text(policy)
    secret = state / "session-secret"
    secret.write_bytes(bytes(range(64)))
    secret.chmod(0o600)
    (state / "proxy-secret").write_text(PROXY_SECRET)
    config = state / "config.yaml"
    text = CONFIG + (EDITING if editing else "")
    if editing:
        shutil.copytree(EMBEDDED_LIBRARY, state / "library")
    config.write_text(text.format(folder=state, address=address))
    settings = {"LORAGATE_LISTEN__HTTP": f"127.0.0.1:{port}"}
    with forked_server(state, settings, config=config) as server, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            yield Console(server, address, browser, [])
        finally:
            browser.close()


def ask(console: Console, name: str, strength: float = 1.0) -> tuple[Verdict, str, str]:
    """What an image service is answered about an adapter: verdict, first reason and id."""
    with console.client() as client:
        result = client.audit_file(ADAPTERS / f"{name}.safetensors", strength=strength)
    return result.verdict, result.reasons[0].code, result.decision_id


def fill(page: Page, action: str, reason: str) -> None:
    """Fills in the form of a review by its labels, and sends it."""
    words = WORDS[page.locator("html").get_attribute("lang") or ""]
    page.get_by_label(words[action]).check()
    page.get_by_label(words["reason"], exact=True).fill(reason)
    page.get_by_role("button", name=words["send"]).click()


def axe(page: Page) -> list[str]:
    """What axe-core calls serious or critical on a page."""
    page.evaluate(AXE.read_text())
    result = page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{one['id']} ({one['impact']}) at {[node['target'] for node in one['nodes']]}"
        for one in result["violations"]
        if one["impact"] in GRAVE
    ]
