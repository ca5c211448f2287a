"""The concept library: what stands there, and pictures that can be nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.thumbnails import SIDE, thumbnail
from loragate_server.console.wording import console_wording
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.verdict import Verdict
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import Opens, evidence, suspected

Records = Callable[..., Verdict]


async def test_forbidden_concepts_stand_there_gravest_first(
    browser: Opens, library: ConceptLibrary
) -> None:
    page = await browser().see("/concepts")
    links = page.links("table")
    assert len(links) == len(library.forbidden)
    assert links[0] == "/console/concepts/bomb"
    shown = page.text("tbody")
    assert shown.index("critical") < shown.index("high") < shown.index("medium")
    assert f"{len(library.neutral)}" in page.text("dl")
    assert library.digest in page.text("dl")
    assert "neutral-" not in page.text()


@pytest.mark.parametrize("language", REPORT.languages)
async def test_a_concept_has_its_pictures_with_words_for_those_who_cannot_see_them(
    language: str, browser: Opens, library: ConceptLibrary
) -> None:
    concept = library.get("bomb")
    page = await browser(language=language).see("/concepts/bomb")
    pictures = page.all("img", ".gallery")
    assert len(pictures) == len(concept.picture_files)
    assert all("bomb" in (one["alt"] or "") for one in pictures)
    for one in pictures:
        answer = await browser().ask((one["src"] or "").removeprefix("/console"))
        assert (answer.status, answer.content_type) == (200, "image/png")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "immutable" in answer.headers["Cache-Control"]
        with Image.open(io.BytesIO(await answer.read())) as picture:
            assert max(picture.size) <= SIDE


async def test_a_concept_says_how_many_hands_show_it_and_what_one_alone_means(
    browser: Opens, library: ConceptLibrary
) -> None:
    shown = (await browser().see("/concepts/bomb")).text("dl")
    assert len(library.get("bomb").hands) == 3
    assert "3 hands: noto, twemoji, fluent" in shown
    assert "One hand alone" not in shown
    [alone] = [one for one in library.neutral if len(one.hands) == 1]
    shown = (await browser().see(f"/concepts/{alone.concept_id}")).text("dl")
    assert "One hand alone" in shown


async def test_recent_verdicts_on_a_concept_are_listed(browser: Opens, record: Records) -> None:
    bomb = {"concept_id": "bomb"}
    found = record(evidence(suspected("bomb", **bomb)))
    record(evidence(suspected("bomb", family_p_value=0.9, p_value=0.9, **bomb)))
    record()
    page = await browser().see("/concepts/bomb")
    assert page.links("table") == [f"/console/audits/{found.decision_id}"]
    assert not (await browser().see("/concepts/ghost")).all("table")


@pytest.mark.parametrize(
    "path",
    ["/concepts/nobody", "/concepts/..%2F..%2Fetc", "/concepts/bomb/pictures/0.png",
     "/concepts/bomb/pictures/" + "0" * 64, "/concepts/bomb/pictures/..%2F..%2Flibrary.yaml",
     "/concepts/%00"],
)  # fmt: skip
async def test_only_what_is_in_the_library_can_be_named(path: str, browser: Opens) -> None:
    page = await browser().see(path, status=404)
    assert page.all("h1")


async def test_a_picture_of_another_concept_is_not_served(
    browser: Opens, library: ConceptLibrary
) -> None:
    [other, *_] = library.get("ghost").picture_sha256
    await browser().see(f"/concepts/bomb/pictures/{other}", status=404)


def test_a_picture_that_was_replaced_is_not_served(tmp_path: Path, library: ConceptLibrary) -> None:
    file = tmp_path / "0.png"
    file.write_bytes(library.get("bomb").picture_files[0].read_bytes())
    with pytest.raises(NoDecisionError) as raised:
        thumbnail(file, "0" * 64)
    assert raised.value.reason is ErrorReason.CONCEPT_PICTURES_INVALID
    file.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    with pytest.raises(NoDecisionError):
        thumbnail(file, "1" * 64)


@pytest.mark.parametrize("path", ["/changes", "/changes/new", "/changes/" + "0" * 32])
async def test_without_the_setting_nothing_can_be_changed(path: str, browser: Opens) -> None:
    assert (await browser("r,e").ask(path)).status == 404
    sent = {"Origin": "http://localhost:8000"}
    answer = await browser("r,e").ask("/changes", method="POST", data={"a": "b"}, headers=sent)
    assert answer.status in (403, 404)
    assert "/console/changes" not in (await browser("r,e").see("/concepts")).links()


async def test_pictures_of_severe_concepts_are_blurred_until_they_are_wanted(
    browser: Opens, library: ConceptLibrary
) -> None:
    page = await browser().see("/concepts/bomb")
    boxes = [one for one in page.all("input", ".veil") if one.get("type") == "checkbox"]
    assert len(boxes) == len(page.all("img", ".gallery")) > 0
    mild = next(one.concept_id for one in library.forbidden if one.severity == "medium")
    assert not (await browser().see(f"/concepts/{mild}")).all("input", ".veil")
    listed = (await browser().see("/concepts")).all("img")
    assert {one["class"] for one in listed if "/bomb/" in (one["src"] or "")} == {"veiled"}
    assert {one["class"] for one in listed if f"/{mild}/" in (one["src"] or "")} == {""}


@pytest.mark.parametrize("language", REPORT.languages)
async def test_what_no_calibration_speaks_for_is_named(
    language: str, browser: Opens, library: ConceptLibrary, uncalibrated: dict[str, tuple[str, ...]]
) -> None:
    calibrated = console_wording(language)("concepts.calibrated")
    for page in ("/concepts", "/concepts/bomb"):
        assert calibrated in (await browser(language=language).see(page)).text("dl")
    uncalibrated["other"] = ("bomb",)
    shown = (await browser(language=language).see("/concepts")).text("dl")
    assert "other" in shown
    assert "bomb" in shown
    assert calibrated not in shown
    assert "other" in (await browser(language=language).see("/concepts/bomb")).text("dl")
    other = next(one.concept_id for one in library.forbidden if one.concept_id != "bomb")
    assert calibrated in (await browser(language=language).see(f"/concepts/{other}")).text("dl")
    uncalibrated["other"] = tuple(one.concept_id for one in library.forbidden)
    assert "bomb" not in (await browser(language=language).see("/concepts")).text("dl")
