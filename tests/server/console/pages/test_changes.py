"""Concepts are added, changed and retired in the browser, by those who may, and on record."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from pathlib import Path

import pytest
from aiohttp import ClientResponse, FormData
from PIL import Image

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.console.editing import concept_of
from loragate_server.console.wording import console_wording
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.record.changes.change import ChangeState
from loragate_server.record.recorder import Recorder
from loragate_server.report.wording import REPORT
from tests.server.console.pages.material import ADDRESS, HOSTILE, Browser, Opens
from tests.server.console.pages.reading import Page
from tests.server.console.pages.shelf import Shelf, make_library, picture

# The library that reads forms with files calls this itself.
pytestmark = pytest.mark.filterwarnings("ignore:unread_data:DeprecationWarning")

EDITOR = "r,e"
NEW = {
    "concept_id": "our-bird", "name": "Our bird", "name-ja": "うちの鳥", "category": "brand",
    "severity": "medium", "prompts": "our bird\r\na bird of ours", "reason": "Campaign 12.",
}  # fmt: skip


@pytest.fixture
def shelf(recorder: Recorder, tmp_path: Path) -> Shelf:
    return Shelf(make_library(tmp_path / "library"), recorder)


async def send(
    browser: Browser,
    page: Page,
    form: str = "change",
    pictures: list[bytes] | None = None,
    **fields: str,
) -> ClientResponse:
    """The form of a page with what a person types and the files that they choose."""
    data = FormData()
    for name, value in {**page.form(form), **fields}.items():
        data.add_field(name, value, content_type="text/plain")
    for number, one in enumerate(pictures or []):
        data.add_field(
            "pictures-0", io.BytesIO(one), filename=f"../{number}.exe", content_type="image/png"
        )
    data.add_field("pictures-1", b"", filename="", content_type="application/octet-stream")
    return await browser.ask("/changes", method="POST", data=data, headers={"Origin": ADDRESS})


async def propose(browser: Browser, **fields: str) -> str:
    """Somebody proposes a new concept; where that leads."""
    page = await browser.see("/changes/new")
    answer = await send(browser, page, pictures=[picture()], **{**NEW, **fields})
    assert answer.status == 303, await answer.text()
    return answer.headers["Location"].removeprefix("/console")


async def act(browser: Browser, where: str, **fields: str) -> ClientResponse:
    page = await browser.see(where)
    return await browser.send(where, page, **{"reason": "Seen.", **fields})


async def settled(shelf: Shelf, where: str) -> ChangeState:
    """What came of a change, when it has ended."""
    name = where.rpartition("/")[2]
    for _ in range(1000):
        if shelf.editing.progress(name) is None:
            break
        await asyncio.sleep(0.01)
    return shelf.editing.changes.get(name).state


async def test_a_new_concept_is_served_and_has_its_names_and_its_pictures(
    browser: Opens, shelf: Shelf, tmp_path: Path
) -> None:
    where = await propose(browser(EDITOR))
    assert await settled(shelf, where) is ChangeState.APPLIED
    made = shelf.library.get("our-bird")
    assert (made.name, made.names, made.role) == ("Our bird", (("ja", "うちの鳥"),), "forbidden")
    assert made.prompts == ("our bird", "a bird of ours")
    assert "うちの鳥" in (await browser("v", language="ja").see("/concepts/our-bird")).text("h1")
    assert "Our bird" in (await browser("v").see("/concepts")).text("tbody")
    shown = await browser("v").see(where)
    assert "in force" in shown.text()
    assert "alice proposed Campaign 12." in shown.text(".events")
    assert not shown.all("textarea")
    log = tmp_path / "decisions.jsonl"
    notes = [json.loads(line)["note"] for line in log.read_text().splitlines()]
    assert [one["change"]["event"]["step"] for one in notes] == ["propose", "applied"]
    assert notes[0]["change"]["event"]["person"] == "alice"
    assert notes[0]["change"]["proposal"]["picture_sha256"] == list(made.picture_sha256)


async def test_what_is_severe_needs_another_person_who_may_change_concepts(
    browser: Opens, shelf: Shelf
) -> None:
    where = await propose(browser(EDITOR), severity="critical")
    assert shelf.editing.changes.get(where[-32:]).state is ChangeState.WAITING
    own = await browser(EDITOR).see(where)
    assert [one["value"] for one in own.all("input") if one.get("type") == "radio"] == ["reject"]
    assert (await act(browser(EDITOR), where, action="approve")).status == 403
    form = await browser(EDITOR, "bob").see(where)
    for group in ("r", "a"):  # no role brings the permission
        answer = await browser(group, "bob").send(where, form, action="approve", reason="x")
        assert answer.status == 403
    assert "our-bird" not in [one.concept_id for one in shelf.library.concepts]
    assert (await act(browser(EDITOR, "bob"), where, action="approve")).status == 303
    assert await settled(shelf, where) is ChangeState.APPLIED
    again = await browser(EDITOR, "bob").send(where, form, action="approve", reason="x")
    assert again.status == 409


async def test_a_severe_concept_cannot_be_made_mild_or_retired_by_one_person(
    browser: Opens, shelf: Shelf
) -> None:
    page = await browser(EDITOR).see("/changes/new?concept=weapon")
    mild = {"name": "Weapon", "category": "brand", "severity": "low", "reason": "Mild."}
    changed = await send(browser(EDITOR), page, **mild)
    retired = await send(browser(EDITOR), page, "retire", reason="Gone.", severity="low")
    for answer in (changed, retired):
        where = answer.headers["Location"].removeprefix("/console")
        assert await settled(shelf, where) is ChangeState.WAITING
    assert shelf.library.get("weapon").severity == "critical"
    assert (await act(browser(EDITOR, "bob"), where, action="reject")).status == 303
    assert await settled(shelf, where) is ChangeState.REJECTED


@pytest.mark.parametrize("where", ["while it waits", "in another server"])
@pytest.mark.parametrize("form", ["change", "retire"])
async def test_what_became_severe_meanwhile_is_not_changed_by_what_one_person_proposed(
    browser: Opens, shelf: Shelf, form: str, where: str
) -> None:
    shelf.gate = asyncio.Event()
    severe = dataclasses.replace(shelf.library.get("mascot"), severity="critical")
    page = await browser(EDITOR).see("/changes/new?concept=mascot")
    if where == "in another server":  # which this one learns of when it starts again
        ConceptLibrary.open(shelf.library.folder).replace(severe, [])
    typed = {"name": "Mascot", "category": "brand", "severity": "low", "reason": "Mild."}
    answer = await send(browser(EDITOR), page, form, **typed)
    if where == "while it waits":
        for _ in range(1000):
            await asyncio.sleep(0.01)
            found = shelf.editing.progress(answer.headers["Location"][-32:])
            if found is not None and found.stage:
                break
        shelf.library = shelf.library.replace(severe, [])
    shelf.gate.set()
    assert await settled(shelf, answer.headers["Location"]) is ChangeState.FAILED
    assert ConceptLibrary.open(shelf.library.folder).get("mascot").severity == "critical"


async def test_a_change_without_pictures_keeps_them_and_one_with_some_replaces_them(
    browser: Opens, shelf: Shelf
) -> None:
    before = shelf.library.get("mascot")
    page = await browser(EDITOR).see("/changes/new?concept=mascot")
    typed = {"name": "The mascot", "category": "brand", "severity": "low", "reason": "Renamed."}
    answer = await send(browser(EDITOR), page, **typed)
    assert await settled(shelf, answer.headers["Location"]) is ChangeState.APPLIED
    renamed = shelf.library.get("mascot")
    assert (renamed.name, renamed.picture_sha256) == ("The mascot", before.picture_sha256)
    late = await send(browser(EDITOR), page, **typed)
    assert late.status == 409
    assert "changed since this page was opened" in await late.text()
    page = await browser(EDITOR).see("/changes/new?concept=mascot")
    answer = await send(browser(EDITOR), page, pictures=[picture("red"), picture("blue")], **typed)
    assert await settled(shelf, answer.headers["Location"]) is ChangeState.APPLIED
    after = shelf.library.get("mascot")
    assert len(after.picture_files) == 2
    assert not set(after.picture_sha256) & set(before.picture_sha256)
    assert not before.picture_files[0].exists()


async def test_names_in_languages_that_the_console_does_not_speak_are_kept(
    browser: Opens, shelf: Shelf
) -> None:
    names = (("de", "Maskottchen"), ("ja", "マスコット"))
    mascot = dataclasses.replace(shelf.library.get("mascot"), names=names)
    shelf.library = shelf.library.replace(mascot, [])
    page = await browser(EDITOR).see("/changes/new?concept=mascot")
    typed = {"name": "The mascot", "name-ja": "", "category": "brand", "severity": "low"}
    answer = await send(browser(EDITOR), page, **typed, reason="Renamed.")
    assert await settled(shelf, answer.headers["Location"]) is ChangeState.APPLIED
    assert shelf.library.get("mascot").names == (("de", "Maskottchen"),)


async def test_the_same_pictures_by_other_hands_are_another_concept(
    browser: Opens, shelf: Shelf
) -> None:
    typed = {"name": "Mascot", "category": "brand", "severity": "low", "reason": "Sorted."}
    for hand in ("film", "comic"):
        page = await browser(EDITOR).see("/changes/new?concept=mascot")
        pictures = [picture("red"), picture("blue")]
        answer = await send(browser(EDITOR), page, pictures=pictures, **typed, **{"hand-0": hand})
        assert await settled(shelf, answer.headers["Location"]) is ChangeState.APPLIED
        assert shelf.library.get("mascot").picture_hands == (hand, hand)


async def test_what_was_made_by_one_server_is_not_called_failed_by_another(
    browser: Opens, shelf: Shelf, recorder: Recorder
) -> None:
    shelf.gate = asyncio.Event()
    where = await propose(browser(EDITOR))
    other = Shelf(shelf.library, recorder)
    other.editing.begin(other.editing.changes.get(where[-32:]))  # somebody tried again there
    assert await settled(other, where) is ChangeState.APPLIED
    shelf.gate.set()
    await settled(shelf, where)  # finds the concept there
    assert shelf.library.digest == other.library.digest
    change = shelf.editing.changes.get(where[-32:])
    assert [one.step for one in change.events] == ["propose", "applied"]


async def test_a_retired_concept_stays_in_the_record(browser: Opens, shelf: Shelf) -> None:
    page = await browser(EDITOR).see("/changes/new?concept=mascot")
    answer = await send(browser(EDITOR), page, "retire", reason="Licence bought.")
    where = answer.headers["Location"].removeprefix("/console")
    assert await settled(shelf, where) is ChangeState.APPLIED
    assert "mascot" not in [one.concept_id for one in shelf.library.concepts]
    old = await browser("v").ask("/concepts/mascot")
    assert (old.status, old.headers["Location"]) == (303, f"/console{where}")
    shown = (await browser("v").see(where)).text()
    assert "Retire: Mascot" in shown
    assert "Licence bought." in shown
    page = await browser(EDITOR).see("/changes/new?concept=weapon")
    answer = await send(browser(EDITOR), page, "retire", reason="The last one.")
    assert answer.status == 400
    assert "decide nothing" in await answer.text()


async def test_a_failure_is_told_and_can_be_tried_again(browser: Opens, shelf: Shelf) -> None:
    shelf.failure = NoDecisionError(
        ErrorReason.OUT_OF_MEMORY, "There is no memory left.", remedy="Give it more."
    )
    where = await propose(browser(EDITOR))
    assert await settled(shelf, where) is ChangeState.FAILED
    shown = await browser(EDITOR).see(where)
    assert "There is no memory left. Give it more." in shown.text(".events")
    assert (await act(browser(EDITOR), where, action="retry")).status == 303
    assert await settled(shelf, where) is ChangeState.APPLIED


async def test_what_is_being_made_says_how_far_it_is(browser: Opens, shelf: Shelf) -> None:
    shelf.gate = asyncio.Event()
    where = await propose(browser(EDITOR))
    for _ in range(1000):
        shown = await browser(EDITOR).see(where)
        if "probes of emoji-tiny" in shown.text():
            break
    assert "40.0 %" in shown.text()
    assert not shown.all("textarea")
    shelf.gate.set()
    assert await settled(shelf, where) is ChangeState.APPLIED


async def test_what_a_server_did_not_finish_is_tried_again_even_where_it_was_made(
    browser: Opens, shelf: Shelf, recorder: Recorder
) -> None:
    shelf.gate = asyncio.Event()
    where = await propose(browser(EDITOR))
    await shelf.editing.close()  # the server ends
    after = Shelf(shelf.library, recorder)
    assert after.editing.changes.get(where[-32:]).state is ChangeState.ACCEPTED
    shown = await browser(EDITOR).see(where)
    assert "not made yet" in shown.text()
    shelf.gate.set()
    assert (await act(browser(EDITOR), where, action="retry")).status == 303
    assert await settled(shelf, where) is ChangeState.APPLIED
    change = shelf.editing.changes.get(where[-32:])
    shelf.editing.begin(change)  # as if it had ended before it was recorded
    await settled(shelf, where)
    assert shelf.editing.changes.get(where[-32:]).events[-1].detail == shelf.library.digest


@pytest.mark.parametrize("retire", [False, True])
async def test_what_another_server_made_is_applied_when_it_is_in_force_here(
    browser: Opens, shelf: Shelf, retire: bool
) -> None:
    """A change is in force for this server's audits, or it is not APPLIED."""
    shelf.failure = NoDecisionError(ErrorReason.OUT_OF_MEMORY, "No memory.", remedy="More.")
    if retire:
        page = await browser(EDITOR).see("/changes/new?concept=mascot")
        answer = await send(browser(EDITOR), page, "retire", reason="Licence bought.")
        where = answer.headers["Location"].removeprefix("/console")
    else:
        where = await propose(browser(EDITOR))
    assert await settled(shelf, where) is ChangeState.FAILED
    change = shelf.editing.changes.get(where[-32:])
    in_force = shelf.library
    if retire:
        in_force.remove("mascot")
    else:
        in_force.add(concept_of(change.proposal), shelf.editing.changes.pictures(change.change_id))
    shelf.failure = NoDecisionError(ErrorReason.OUT_OF_MEMORY, "Still none.", remedy="More.")
    assert (await act(browser(EDITOR), where, action="retry")).status == 303
    assert await settled(shelf, where) is ChangeState.FAILED
    assert (await act(browser(EDITOR), where, action="retry")).status == 303
    assert await settled(shelf, where) is ChangeState.APPLIED
    assert shelf.library.digest != in_force.digest


@pytest.mark.parametrize("language", REPORT.languages)
@pytest.mark.parametrize(
    ("typed", "sent", "status"),
    [
        ({"concept_id": "Our Bird"}, [picture()], 400),
        ({"concept_id": "../../etc"}, [picture()], 400),
        ({"concept_id": "mascot"}, [picture()], 409),
        ({"concept_id": "plain-1"}, [picture()], 409),
        ({"name": ""}, [picture()], 400),
        ({"name": "a\nb"}, [picture()], 400),
        ({"category": "Brand!"}, [picture()], 400),
        ({"severity": "grave"}, [picture()], 400),
        ({"reason": "  "}, [picture()], 400),
        ({"hand-0": "Über"}, [picture()], 400),
        ({}, [], 400),
        ({}, [b"<svg onload=alert(1)>"], 400),
        ({}, [picture()[:60]], 400),
        ({}, [picture(kind="GIF")], 400),
        ({"kind": "delete"}, [picture()], 400),
    ],
)
async def test_what_no_library_could_hold_is_refused_and_comes_back_as_typed(
    typed: dict[str, str],
    sent: list[bytes],
    status: int,
    language: str,
    browser: Opens,
    shelf: Shelf,
) -> None:
    reader = browser(EDITOR, language=language)
    page = await reader.see("/changes/new")
    answer = await send(reader, page, pictures=sent, **{**NEW, **typed})
    assert answer.status == status
    shown = Page(await answer.text(), answer.headers)
    if "kind" not in typed:
        assert len([one for one in shown.all("div") if one.get("role") == "alert"]) == 1
        assert "our bird" in shown.text("textarea")
    assert shelf.editing.changes.newest() == []


async def test_of_a_picture_nothing_but_its_pixels_is_kept(browser: Opens, shelf: Shelf) -> None:
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif[0x0112] = 6
    taken = picture("navy", "JPEG", exif=exif, comment=b"SecretComment")
    assert b"SecretCamera" in taken
    page = await browser(EDITOR).see("/changes/new")
    answer = await send(browser(EDITOR), page, pictures=[taken], **NEW)
    assert await settled(shelf, answer.headers["Location"]) is ChangeState.APPLIED
    [file] = shelf.library.get("our-bird").picture_files
    data = file.read_bytes()
    assert b"Secret" not in data
    with Image.open(io.BytesIO(data)) as stored:
        assert (stored.format, stored.info) == ("PNG", {})
        assert not stored.getexif()


async def test_pictures_of_a_proposal_are_blurred_or_hidden_as_those_of_the_library(
    browser: Opens, shelf: Shelf
) -> None:
    where = await propose(browser(EDITOR), severity="critical")
    shown = await browser(EDITOR, "bob").see(where)
    assert len(shown.all("img", ".veil")) == 1
    small = await browser("v").ask(f"{where}/pictures/0")
    assert (small.status, small.content_type) == (200, "image/png")
    assert (await browser("v").ask(f"{where}/pictures/1")).status == 404
    hidden = await propose(
        browser(EDITOR), severity="critical", category="secret", concept_id="other"
    )
    shown = await browser(EDITOR, "bob").see(hidden)
    assert not shown.all("img")
    assert console_wording("en")("references.hidden") in shown.text()
    assert (await browser(EDITOR).ask(f"{hidden}/pictures/0")).status == 404


async def test_pictures_of_a_concept_that_is_to_become_mild_are_shown_as_those_of_what_it_is(
    browser: Opens, shelf: Shelf
) -> None:
    page = await browser(EDITOR).see("/changes/new?concept=weapon")
    mild = {"name": "Weapon", "category": "brand", "severity": "low", "reason": "Mild."}
    answer = await send(browser(EDITOR), page, pictures=[picture("red")], **mild)
    where = answer.headers["Location"].removeprefix("/console")
    shown = await browser(EDITOR, "bob").see(where)
    assert len(shown.all("img", ".veil")) == 1
    assert "/console/concepts/weapon" in shown.links(), "who approves can see what it is now"
    weapon = shelf.library.get("weapon")
    shelf.library = shelf.library.replace(dataclasses.replace(weapon, category="secret"), [])
    assert not (await browser(EDITOR, "bob").see(where)).all("img")
    assert (await browser("v").ask(f"{where}/pictures/0")).status == 404


async def test_a_picture_is_shown_without_reading_all_that_came_with_it(
    browser: Opens, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = await propose(browser(EDITOR), severity="critical")

    def read_all(*_: object) -> list[bytes]:
        raise AssertionError("a page asks for each of two dozen pictures")

    monkeypatch.setattr(type(shelf.editing.changes), "pictures", read_all)
    assert (await browser("v").ask(f"{where}/pictures/0")).status == 200
    assert (await browser("v").ask(f"{where}/pictures/99")).status == 404


async def test_who_has_no_permission_is_offered_nothing_and_refused(
    browser: Opens, shelf: Shelf
) -> None:
    form = await browser(EDITOR).see("/changes/new")
    for group in ("v", "r", "a"):
        reader = browser(group)
        assert "/console/changes/new" not in (await reader.see("/concepts")).links()
        await reader.see("/changes/new", status=403)
        assert (await send(reader, form, pictures=[picture()], **NEW)).status == 403
        assert (await reader.see("/changes")).all("h1")
    assert (await browser("e").ask("/changes")).status == 403  # a permission is no role
    await browser(EDITOR).see("/changes/" + "0" * 32, status=404)
    assert shelf.editing.changes.newest() == []


async def test_a_form_of_another_site_or_without_its_token_first_is_refused_unread(
    browser: Opens, shelf: Shelf
) -> None:
    reader = browser(EDITOR)
    page = await reader.see("/changes/new")
    for headers in ({"Origin": "https://evil.example"}, {}):
        data = FormData({**page.form("change"), **NEW})
        data.add_field("pictures-0", picture(), filename="a.png")
        answer = await reader.ask("/changes", method="POST", data=data, headers=headers)
        assert answer.status == 403
    assert (await send(reader, page, pictures=[picture()], **{**NEW, "csrf": "x"})).status == 403
    late = FormData()
    late.add_field("pictures-0", picture(), filename="a.png")
    late.add_field("csrf", page.form("change")["csrf"], content_type="text/plain")
    answer = await reader.ask("/changes", method="POST", data=late, headers={"Origin": ADDRESS})
    assert answer.status == 403
    plain = {**page.form("change"), **NEW}
    answer = await reader.ask("/changes", method="POST", data=plain, headers={"Origin": ADDRESS})
    assert answer.status == 415
    assert shelf.editing.changes.newest() == []


async def test_too_much_is_refused(browser: Opens, shelf: Shelf) -> None:
    reader = browser(EDITOR)
    page = await reader.see("/changes/new")
    large = [bytes(3 * 2**20 + 1)]
    for sent in (large, [picture()] * 25, [bytes(3 * 2**20)] * 9):
        answer = await send(reader, page, pictures=sent, **NEW)
        assert answer.status == 413
    assert shelf.editing.changes.newest() == []


async def test_what_people_write_is_shown_and_never_interpreted(
    browser: Opens, shelf: Shelf
) -> None:
    where = await propose(browser(EDITOR), name=HOSTILE.replace("\u202e", ""), reason=HOSTILE)
    assert await settled(shelf, where) is ChangeState.APPLIED
    for path in (where, "/changes", "/concepts/our-bird", "/changes/new?concept=our-bird"):
        page = await browser(EDITOR).see(path)
        assert "script" not in {tag for tag, _ in page.elements}
        assert "\u202e" not in page.source
