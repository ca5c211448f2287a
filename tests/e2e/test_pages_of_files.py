"""Pages that people open as files, in a real browser: what a scan found, and a whole catalogue."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api")

from loragate import AuditClient  # noqa: E402
from loragate.cli.adapter_files import FoundFile, RefusedFileError  # noqa: E402
from loragate.cli.outcome import Outcome  # noqa: E402
from loragate.cli.reports import report  # noqa: E402
from loragate_server.policy.decision import VerdictKind  # noqa: E402
from loragate_server.report.summary import Counted, Summary, render_summary  # noqa: E402
from loragate_server.report.wording import REPORT  # noqa: E402
from tests.e2e.conftest import ADAPTERS  # noqa: E402
from tests.e2e.console_stack import axe, chromium  # noqa: E402

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.skipif(
        chromium() is None,
        reason="chromium is missing; scripts/install_test_tools.sh installs it",
    ),
]
LONG = "a-name-without-a-single-place-to-break-it-" * 6
VIEWS = [(1200, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


def complaints(browser: playwright.Browser, file: Path, width: int, scheme: str) -> list[str]:
    """What is wrong with a page for people who see it in such a window."""
    found: list[str] = []
    note = found.append
    for bypass_csp in (False, True):  # axe is a script, and the pages forbid all
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=bypass_csp
        )
        page = context.new_page()
        page.on("console", lambda told: note(told.text))
        page.on("request", lambda asked: note(asked.url))
        page.goto(file.as_uri())
        found.remove(file.as_uri())
        if bypass_csp:
            found += axe(page)
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > width:
            found.append(f"it is {wide} pixels wide")
        context.close()
    return found


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
@pytest.mark.parametrize("language", REPORT.languages)
def test_the_page_over_a_catalogue_is_for_every_eye_and_size(
    browser: playwright.Browser, tmp_path: Path, language: str, width: int, scheme: str
) -> None:
    summary = Summary(
        scan_id="0123456789abcdef",
        files=1_000_000,
        verdicts=dict.fromkeys(VerdictKind, 250000),
        pilot=True,
        same=3,
        concepts=(Counted(LONG, 20_000, 10_000), Counted("ボム", 1)),
        families=(Counted("ab" * 32, 400, 400),),
        refused=(Counted("FILE_TRUNCATED", 4), Counted("NOT_SAFETENSORS", 1)),
        stages={"screen": 9e5, "response": 4e4, "record": 1e3},
    )
    (file := tmp_path / "summary.html").write_text(render_summary(summary, language))
    assert complaints(browser, file, width, scheme) == []


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_the_report_of_a_scan_is_for_every_eye_and_size(
    browser: playwright.Browser, client: AuditClient, tmp_path: Path, width: int, scheme: str
) -> None:
    outcomes = []
    for name in ("harmless-sepia", "learned-jack-o-lantern"):
        path = ADAPTERS / f"{name}.safetensors"
        found = FoundFile(path, f"{LONG}/{path.name}")
        outcomes.append(Outcome(found, client.audit_file(path), None, 1.5))
    refused = RefusedFileError("NOT_SAFETENSORS", "It is a pickle, which may run code.")
    outcomes.append(Outcome(FoundFile(Path("a.pt"), "a.pt", refused), None, refused, 0.0))
    (file := tmp_path / "scan.html").write_text(report("html", outcomes))
    assert complaints(browser, file, width, scheme) == []
