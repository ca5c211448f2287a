"""Reports with pictures of what was found: in the file, blurred or hidden, and never too many."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from loragate_server.audit.evidence import ConceptEvidence, Evidence
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.thumbnails import thumbnail
from loragate_server.config.schema import EMBEDDED_LIBRARY
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.verdict import Verdict
from loragate_server.report.references import MOST_BYTES, Viewing, embedded
from loragate_server.report.render import render
from loragate_server.report.wording import report_wording
from tests.server.report.reading import Page

DATA = "data:image/png;base64,"


@pytest.fixture(scope="module")
def library() -> ConceptLibrary:
    return ConceptLibrary.open(EMBEDDED_LIBRARY)


@pytest.fixture
def verdict(
    concept: Callable[..., ConceptEvidence],
    evidence: Callable[..., Evidence],
    recorded: Callable[..., Verdict],
) -> Verdict:
    """Two concepts of the library were learned; the record calls both of low severity."""
    learned = [
        replace(concept(score=6), concept_id=one, severity="low") for one in ("bomb", "ghost")
    ]
    return recorded(evidence(*learned))


def seen(
    library: ConceptLibrary, hidden: tuple[str, ...] = (), veiled: str = "critical"
) -> Viewing:
    return Viewing(library.get, {veiled}, hidden)


def test_a_report_holds_the_pictures_and_needs_nothing_else(
    verdict: Verdict, library: ConceptLibrary, language: str
) -> None:
    text = render(verdict, language, embedded(verdict.decision, seen(library), thumbnail))
    page = Page(text)
    images = [facts for tag, facts in page.elements if tag == "img"]
    assert images
    for one in images:
        assert (one["src"] or "").startswith(DATA)
        assert one["alt"]
        data = base64.b64decode((one["src"] or "").removeprefix(DATA), validate=True)
        with Image.open(io.BytesIO(data)) as picture:
            assert picture.format == "PNG"
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert policy in [facts.get("content") for _, facts in page.elements]
    assert report_wording(language)("references.title") in page.text("#references")
    assert len(text.encode()) < MOST_BYTES * 4 / 3 + 100_000


def test_pictures_of_what_is_severe_in_the_library_are_behind_a_box(
    verdict: Verdict, library: ConceptLibrary
) -> None:
    assert library.get("bomb").severity == "critical"
    page = Page(render(verdict, "en", embedded(verdict.decision, seen(library), thumbnail)))
    boxes = [facts for tag, facts in page.elements if tag == "input"]
    assert len(boxes) == len([1 for _, facts in page.elements if facts.get("class") == "veil"]) > 0
    assert not any("checked" in one for one in boxes)
    assert len(boxes) < len([1 for tag, _ in page.elements if tag == "img"])


def test_pictures_of_sensitive_categories_are_in_no_report(
    verdict: Verdict, library: ConceptLibrary, language: str
) -> None:
    categories = tuple(library.get(one).category for one in ("bomb", "ghost"))
    shown = embedded(verdict.decision, seen(library, categories), thumbnail)
    page = Page(render(verdict, language, shown))
    assert not [1 for tag, _ in page.elements if tag == "img"]
    assert report_wording(language)("references.hidden") in page.text("#references")


def test_pictures_are_left_out_where_there_is_no_room_or_they_have_changed(
    verdict: Verdict, library: ConceptLibrary
) -> None:
    def large(file: Path, sha256: str) -> bytes:
        return bytes(MOST_BYTES // 3)

    first, second = embedded(verdict.decision, seen(library), large)
    assert len(first.pictures) + len(second.pictures) == 3
    assert first.left_out + second.left_out > 0
    assert "no room" in Page(render(verdict, "en", (first, second))).text("#references")

    def changed(file: Path, sha256: str) -> bytes:
        raise NoDecisionError(ErrorReason.CONCEPT_PICTURES_INVALID, "Changed.", remedy="Restart.")

    assert not any(one.pictures for one in embedded(verdict.decision, seen(library), changed))


def test_a_concept_that_the_library_lost_is_no_fault(
    verdict: Verdict, library: ConceptLibrary
) -> None:
    def gone(concept_id: str) -> object:
        raise NoDecisionError(ErrorReason.CONCEPT_UNKNOWN, "Gone.", remedy="Nothing.")

    viewing = Viewing(gone, (), ())  # type: ignore[arg-type]
    assert embedded(verdict.decision, viewing, thumbnail) == ()
