"""The library on disk: opened, checked, changed; its digest."""

from __future__ import annotations

import dataclasses
import io
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from loragate_server.concepts import pictures
from loragate_server.concepts.concept import MAX_PICTURES, Concept
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.pictures import MAX_BYTES, STORED_SIDE, load_pictures
from loragate_server.errors import ErrorReason, NoDecisionError

Draw = Callable[..., bytes]


def refusal(reason: ErrorReason) -> Any:
    """`pytest.raises` for a NoDecisionError of this reason."""
    return pytest.raises(NoDecisionError, check=lambda error: error.reason is reason)


def test_an_open_library_lists_concepts_by_id_and_role(library: ConceptLibrary) -> None:
    assert [concept.concept_id for concept in library.forbidden] == ["cat", "dog"]
    assert [concept.concept_id for concept in library.neutral] == [f"neutral-{n}" for n in range(9)]
    cat = library.get("cat")
    assert (cat.name, cat.category, cat.severity, cat.role) == (
        "Cat",
        "animal",
        "high",
        "forbidden",
    )
    assert cat.prompts == ("a picture of cat",)
    assert [path.name for path in cat.picture_files] == ["cat-0.png", "cat-1.png"]
    assert all(path.is_absolute() and path.is_file() for path in cat.picture_files)


def test_an_unknown_concept_is_named(library: ConceptLibrary) -> None:
    with refusal(ErrorReason.CONCEPT_UNKNOWN) as error:
        library.get("fox")
    assert error.value.metadata == {"concept_id": "fox"}


def test_the_digest_is_of_content_and_not_of_place_or_order(
    library: ConceptLibrary, entries: list[Any], write: Callable[..., None], tmp_path: Path
) -> None:
    moved = shutil.copytree(library.folder, tmp_path / "elsewhere")
    assert ConceptLibrary.open(moved).digest == library.digest
    write(reversed(entries))
    assert ConceptLibrary.open(library.folder).digest == library.digest


def test_the_digest_changes_when_a_picture_changes(library: ConceptLibrary, draw: Draw) -> None:
    library.get("neutral-3").picture_files[1].write_bytes(draw(999))
    assert ConceptLibrary.open(library.folder).digest != library.digest


def test_the_digest_changes_when_pictures_are_swapped(library: ConceptLibrary) -> None:
    first, second = library.get("cat").picture_files
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    assert ConceptLibrary.open(library.folder).digest != library.digest


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "Tiger"), ("severity", "low"), ("category", "pet"), ("prompts", []), ("id", "kitty")],
)
def test_the_digest_changes_with_every_field(
    library: ConceptLibrary, entries: list[Any], write: Callable[..., None], field: str, value: Any
) -> None:
    write([entries[0], {**entries[1], field: value}, *entries[2:]])
    assert ConceptLibrary.open(library.folder).digest != library.digest


def test_a_library_without_forbidden_concepts_is_empty(
    folder: Path, entries: list[Any], write: Callable[..., None]
) -> None:
    write(entries[2:])
    with refusal(ErrorReason.LIBRARY_EMPTY) as error:
        ConceptLibrary.open(folder)
    assert "0 forbidden and 9 neutral" in error.value.message


def test_a_library_with_too_small_a_bank_is_empty(
    folder: Path, entries: list[Any], write: Callable[..., None]
) -> None:
    write(entries[:9])
    with refusal(ErrorReason.LIBRARY_EMPTY) as error:
        ConceptLibrary.open(folder)
    assert "2 forbidden and 7 neutral" in error.value.message


def test_a_missing_picture_is_named(library: ConceptLibrary) -> None:
    library.get("dog").picture_files[1].unlink()
    with refusal(ErrorReason.CONCEPT_PICTURES_INVALID) as error:
        ConceptLibrary.open(library.folder)
    assert error.value.metadata == {"picture": "dog-1.png"}


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 64])
def test_a_picture_that_cannot_be_decoded_is_named(library: ConceptLibrary, content: bytes) -> None:
    library.get("neutral-0").picture_files[0].write_bytes(content)
    with refusal(ErrorReason.CONCEPT_PICTURES_INVALID) as error:
        ConceptLibrary.open(library.folder)
    assert error.value.metadata == {"picture": "neutral-0-0.png"}


def test_a_picture_that_links_out_of_the_library_is_refused(
    library: ConceptLibrary, tmp_path: Path, draw: Draw
) -> None:
    (tmp_path / "secret.png").write_bytes(draw(1))
    path = library.get("cat").picture_files[0]
    path.unlink()
    path.symlink_to(tmp_path / "secret.png")
    with refusal(ErrorReason.CONCEPT_PICTURES_INVALID) as error:
        ConceptLibrary.open(library.folder)
    assert "leads out of the library" in error.value.message


def test_an_added_concept_is_there_and_the_old_library_is_as_it_was(
    library: ConceptLibrary, fox: Concept, draw: Draw
) -> None:
    digest = library.digest
    grown = library.add(fox, [draw(1), draw(2, kind="JPEG"), draw(3, kind="WEBP")])
    assert library.digest == digest
    assert grown.digest == ConceptLibrary.open(library.folder).digest != digest
    stored = grown.get("fox")
    assert len(stored.picture_files) == 3
    plain = dataclasses.replace(stored, picture_files=(), picture_sha256=())
    assert plain == fox
    with Image.open(stored.picture_files[0]) as picture:
        assert picture.format == "PNG"
        assert picture.size == (24, 20)
    with pytest.raises(NoDecisionError):
        library.get("fox")


def test_adding_and_removing_gives_the_old_digest_and_leaves_no_picture(
    library: ConceptLibrary, fox: Concept, draw: Draw
) -> None:
    before = sorted(library.folder.rglob("*.png"))
    shrunk = library.add(fox, [draw(1)]).remove("fox")
    assert shrunk.digest == library.digest
    assert sorted(library.folder.rglob("*.png")) == before


def test_the_same_concept_can_be_added_again_after_its_removal(
    library: ConceptLibrary, fox: Concept, draw: Draw
) -> None:
    first = library.add(fox, [draw(1)])
    assert first.remove("fox").add(fox, [draw(1)]).digest == first.digest


def test_a_concept_that_exists_cannot_be_added(
    library: ConceptLibrary, fox: Concept, draw: Draw
) -> None:
    with refusal(ErrorReason.CONCEPT_EXISTS) as error:
        library.add(dataclasses.replace(fox, concept_id="cat"), [draw(1)])
    assert error.value.metadata == {"concept_id": "cat"}
    assert ConceptLibrary.open(library.folder).digest == library.digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("concept_id", "../fox"),
        ("concept_id", "Fox"),
        ("concept_id", ""),
        ("concept_id", "f" * 65),
        ("name", ""),
        ("name", "fox\nALLOW"),
        ("category", "Wild Animals"),
        ("severity", "severe"),
        ("role", "accused"),
        ("prompts", ("",)),
    ],
)
def test_a_concept_with_a_bad_field_is_refused_and_nothing_is_written(
    library: ConceptLibrary, fox: Concept, draw: Draw, field: str, value: Any
) -> None:
    before = sorted(library.folder.parent.rglob("*"))
    with refusal(ErrorReason.REQUEST_INVALID) as error:
        library.add(dataclasses.replace(fox, **{field: value}), [draw(1)])
    assert error.value.metadata["field"].startswith(field.removeprefix("concept_"))
    after = [path for path in library.folder.parent.rglob("*") if path.name != ".lock"]
    assert sorted(after) == before


@pytest.mark.parametrize("count", [0, MAX_PICTURES + 1])
def test_a_concept_needs_pictures_but_not_too_many(
    library: ConceptLibrary, fox: Concept, draw: Draw, count: int
) -> None:
    with refusal(ErrorReason.CONCEPT_PICTURES_INVALID):
        library.add(fox, [draw(1)] * count)


def test_one_bad_picture_refuses_the_concept_by_its_number(
    library: ConceptLibrary, fox: Concept, draw: Draw
) -> None:
    with refusal(ErrorReason.CONCEPT_PICTURES_INVALID) as error:
        library.add(fox, [draw(1), draw(2)[:50]])
    assert error.value.metadata == {"picture": "1"}
    assert ConceptLibrary.open(library.folder).digest == library.digest
    assert not (library.folder / "pictures").exists()


def test_a_picture_that_grows_when_it_is_stored_leaves_the_library_usable(
    library: ConceptLibrary, fox: Concept
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1800, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", quality=60)
    assert len(stream.getvalue()) < MAX_BYTES
    grown = library.add(fox, [stream.getvalue()])
    [path] = grown.get("fox").picture_files
    assert path.stat().st_size > MAX_BYTES
    with Image.open(path) as picture:
        assert min(picture.size) == STORED_SIDE


def test_adding_never_overwrites_a_picture_of_another_concept(
    library: ConceptLibrary,
    entries: list[Any],
    write: Callable[..., None],
    draw: Draw,
    fox: Concept,
) -> None:
    path = library.folder / "pictures" / "fox" / "0.png"
    path.parent.mkdir(parents=True)
    path.write_bytes(draw(77))
    write([{**entries[0], "pictures": ["pictures/fox/0.png"]}, *entries[1:]])
    grown = ConceptLibrary.open(library.folder).add(fox, [draw(1)])
    assert path.read_bytes() == draw(77)
    assert grown.get("fox").picture_files[0].name == "1.png"
    grown.remove("fox")
    assert path.read_bytes() == draw(77)


def test_removing_keeps_pictures_that_others_use(
    library: ConceptLibrary, entries: list[Any], write: Callable[..., None]
) -> None:
    write([entries[0], {**entries[1], "pictures": entries[0]["pictures"]}, *entries[2:]])
    smaller = ConceptLibrary.open(library.folder).remove("cat")
    assert [concept.concept_id for concept in smaller.forbidden] == ["dog"]


def test_an_unknown_concept_cannot_be_removed(library: ConceptLibrary) -> None:
    with refusal(ErrorReason.CONCEPT_UNKNOWN):
        library.remove("fox")


def test_a_concept_that_is_not_as_it_was_is_neither_changed_nor_removed(
    library: ConceptLibrary,
) -> None:
    cat = library.get("cat")
    changed = library.replace(dataclasses.replace(cat, severity="critical"), [], cat.digest)
    with refusal(ErrorReason.CONCEPT_UNKNOWN):
        library.replace(dataclasses.replace(cat, severity="low"), [], cat.digest)
    with refusal(ErrorReason.CONCEPT_UNKNOWN):
        library.remove("cat", cat.digest)
    assert ConceptLibrary.open(library.folder).digest == changed.digest
    assert "cat" not in [
        one.concept_id for one in library.remove("cat", changed.get("cat").digest).concepts
    ]


def test_what_the_library_cannot_do_without_cannot_be_removed(library: ConceptLibrary) -> None:
    smaller = library.remove("neutral-8")
    with refusal(ErrorReason.LIBRARY_EMPTY):
        smaller.remove("neutral-0")
    last = smaller.remove("cat")
    with refusal(ErrorReason.LIBRARY_EMPTY):
        last.remove("dog")
    assert ConceptLibrary.open(library.folder).digest == last.digest
    assert len(list(library.folder.rglob("dog-*.png"))) == 2


def test_concepts_added_from_several_threads_are_all_kept(
    library: ConceptLibrary, fox: Concept, draw: Draw
) -> None:
    names = [f"fox-{number}" for number in range(6)]
    threads = [
        threading.Thread(
            target=library.add, args=(dataclasses.replace(fox, concept_id=name), [draw(1)])
        )
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [concept.concept_id for concept in ConceptLibrary.open(library.folder).forbidden]
    assert found == ["cat", "dog", *names]


def test_it_is_opened_without_decoding_pictures_and_who_decodes_a_broken_one_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = next((folder / "shots").glob("dog-*.png"))
    picture.write_bytes(picture.read_bytes()[:-40])  # its header is whole
    with monkeypatch.context() as patch:
        patch.setattr(pictures, "_decode", lambda _: pytest.fail("a picture was decoded"))
        library = ConceptLibrary.open(folder)
    with pytest.raises(NoDecisionError, match=f"Picture {picture.name} cannot be read") as error:
        load_pictures(library.get("dog"), (16, 16))
    assert error.value.reason is ErrorReason.CONCEPT_PICTURES_INVALID
