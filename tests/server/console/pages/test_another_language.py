"""A language that has nothing but its files is offered, chosen and used on every page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loragate_server.access.pages import ACCESS
from loragate_server.console.wording import CONSOLE
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import Opens

MARK = "«"
"""Stands before every sentence of the language."""


@pytest.fixture
def _swedish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies of the catalogues, in which a file is added."""
    for catalogue in (REPORT, CONSOLE, ACCESS):
        folder = tmp_path / catalogue.folder.parent.name
        folder.mkdir()
        for file in catalogue.folder.glob("*.yaml"):
            (folder / file.name).write_bytes(file.read_bytes())
        english = YAML(typ="safe").load(folder / "en.yaml")
        marked = {
            section: {name: _marked(value) for name, value in entries.items()}
            for section, entries in english.items()
        }
        if "time" in marked:
            marked["time"] = {"zone": "Europe/Stockholm", "moment": "{local} ({utc})"}
        YAML(typ="safe").dump(marked, folder / "sv.yaml")
        monkeypatch.setattr(catalogue, "folder", folder)


def _marked(value: str | list[str]) -> str | list[str]:
    return MARK + value if isinstance(value, str) else [MARK + one for one in value]


@pytest.mark.usefixtures("_swedish")
async def test_files_are_all_that_a_language_needs(
    browser: Opens, record: Callable[..., Verdict]
) -> None:
    decision_id = record().decision_id
    english = await browser().see(f"/audits/{decision_id}")
    named = {one["hreflang"] for one in english.all("a", "header") if "hreflang" in one}
    assert named == {"en", "ja", "sv"}
    assert "svenska" in english.text("header")
    assert "Report as one file (Swedish)" in english.text("main")
    swedish = await browser(language="sv-SE").see(f"/audits/{decision_id}")
    assert swedish.all("html") == [{"lang": "sv"}]
    assert swedish.text("h1").startswith(MARK)
    assert f"{MARK}Report as one file (japanska)" in swedish.text("main")
    report = await browser(language="sv").see(f"/audits/{decision_id}/report")
    assert report.all("html") == [{"lang": "sv"}]
    assert f"{MARK}Reasons" in report.text("#reasons")
    refused = await browser(group="nobody", language="sv").ask("/")
    assert f"<h1>{MARK}No access</h1>" in await refused.text()
