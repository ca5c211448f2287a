"""Reference pictures beside a decision: shown, blurred or hidden, and who waits for how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from sqlalchemy import update

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.console.sources import SOURCES
from loragate_server.console.wording import console_wording
from loragate_server.record.recorder import Recorder
from loragate_server.record.tables import audits
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import Opens, evidence, suspected

Records = Callable[..., Verdict]
Client = TestClient[web.Request, web.Application]


@pytest.fixture
def of_library(record: Records, library: ConceptLibrary) -> Callable[[str], Verdict]:
    """A suspected concept that the library has, with a severity that is chosen."""
    concept = library.forbidden[0]

    def one(severity: str) -> Verdict:
        found = suspected(concept.name, severity, concept_id=concept.concept_id)
        return record(evidence(found))

    return one


@pytest.fixture
def mild(library: ConceptLibrary, client: Client) -> None:
    """The library calls all its concepts mild; what the record says of them counts as well."""
    forbidden = tuple(replace(one, severity="low") for one in library.forbidden)
    found = {one.concept_id: one for one in forbidden}

    class Mild:
        def get(self, concept_id: str) -> object:
            return found.get(concept_id) or library.get(concept_id)

    change(client, library=lambda: Mild())


def change(client: Client, **facts: object) -> None:
    console = client.app._subapps[0]  # type: ignore[union-attr]
    sources = replace(console[SOURCES], **facts)
    console._state[SOURCES] = sources


@pytest.mark.parametrize("language", REPORT.languages)
async def test_pictures_of_a_mild_concept_are_shown(
    mild: None, language: str, browser: Opens, of_library: Callable[[str], Verdict]
) -> None:
    verdict = of_library("medium")
    page = await browser(language=language).see(f"/audits/{verdict.decision_id}")
    images = page.all("img", ".gallery")
    assert images
    assert all(one["alt"] for one in images)
    assert not page.all("label", ".gallery")
    picture = (images[0]["src"] or "").removeprefix("/console")
    assert (await browser().ask(picture)).content_type == "image/png"


@pytest.mark.parametrize("severity", ["high", "critical", "of a later version"])
async def test_pictures_of_a_severe_concept_are_blurred_until_they_are_wanted(
    mild: None, severity: str, browser: Opens, of_library: Callable[[str], Verdict]
) -> None:
    page = await browser().see(f"/audits/{of_library(severity).decision_id}")
    boxes = [one for one in page.all("input", ".veil") if one.get("type") == "checkbox"]
    assert boxes
    assert len(boxes) == len(page.all("img", ".veil")) == len(page.all("img", ".gallery"))
    assert not any("checked" in one for one in boxes)
    assert all(one["class"] == "veiled" for one in (await browser().see("/")).all("img"))


@pytest.mark.parametrize("language", REPORT.languages)
async def test_pictures_of_a_sensitive_category_are_shown_nowhere(
    language: str,
    browser: Opens,
    of_library: Callable[[str], Verdict],
    library: ConceptLibrary,
    client: Client,
) -> None:
    concept = library.forbidden[0]
    change(client, sensitive_categories=frozenset({concept.category}))
    verdict = of_library("low")
    reader = browser(language=language)
    hidden = console_wording(language)("references.hidden")
    for path in (f"/audits/{verdict.decision_id}", f"/concepts/{concept.concept_id}"):
        page = await reader.see(path)
        assert not page.all("img")
        assert hidden in page.text()
    assert not (await reader.see("/")).all("img")
    listed = await reader.see("/concepts")
    assert f"/concepts/{concept.concept_id}/" not in listed.source
    digest = concept.picture_sha256[0]
    await reader.see(f"/concepts/{concept.concept_id}/pictures/{digest}", status=404)


async def test_a_concept_that_the_library_no_longer_has_is_no_fault(
    browser: Opens, record: Records
) -> None:
    page = await browser().see(f"/audits/{record().decision_id}")
    assert not page.all("img")
    assert not (await browser().see("/")).all("img")


async def test_the_queue_tells_since_when_something_waits_and_how_grave_it_is(
    browser: Opens, record: Records, recorder: Recorder
) -> None:
    first = record(evidence(suspected(severity="critical")))
    record(evidence(suspected(severity="critical")))
    before = datetime.now(UTC) - timedelta(days=3)
    moved = update(audits).where(audits.c.decision_id == first.decision_id)
    with recorder.database.writing() as connection:
        connection.execute(moved.values(decided_at=before))
    record(evidence(suspected(severity="low"), sha256="b" * 64))
    shown = (await browser().see("/")).text("tbody")
    assert "0 min low" in shown
    assert "3.0 days critical" in shown
