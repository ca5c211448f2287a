"""Pictures by several hands: in the manifest, in the library, from folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.gathering import gather
from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.manifest import ConceptEntry, Manifest, dump_manifest, read_manifest
from loragate_server.errors import ErrorReason, NoDecisionError

Draw = Callable[..., bytes]
FACTS = {
    "id": "fox",
    "name": "Fox",
    "category": "animal",
    "severity": "high",
    "role": "forbidden",
}


def test_hands_take_turns_so_that_the_first_pictures_are_of_as_many_as_there_are() -> None:
    hands = {"comic": ["c0", "c1", "c2"], "film": ["f0"], "toys": ["t0", "t1"]}
    entry = ConceptEntry.model_validate({**FACTS, "hands": hands})
    assert [name for name, _ in entry.files] == ["c0", "f0", "t0", "c1", "t1", "c2"]
    assert [hand for _, hand in entry.files] == ["comic", "film", "toys", "comic", "toys", "comic"]


@pytest.mark.parametrize(
    ("pictured", "fault"),
    [
        ({}, "give either pictures"),
        ({"pictures": ["a"], "hands": {"comic": ["b"]}}, "give either pictures"),
        ({"pictures": []}, "at least 1"),
        ({"hands": {}}, "0 pictures"),
        ({"hands": {"comic": []}}, "at least 1"),
        ({"hands": {"comic": ["../a"]}}, "not inside the library"),
        ({"hands": {"Comic": ["a"]}}, "should match pattern"),
        ({"hands": {"a": ["x"] * 40, "b": ["y"] * 40}}, "80 pictures"),
    ],
)
def test_a_concept_without_clear_pictures_is_refused(pictured: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ConceptEntry.model_validate({**FACTS, **pictured})


def test_a_manifest_with_hands_is_read_as_it_was_written(tmp_path: Path) -> None:
    entry = ConceptEntry.model_validate({**FACTS, "hands": {"film": ["f0"], "comic": ["c0"]}})
    unsorted = ConceptEntry.model_validate({**FACTS, "id": "cat", "pictures": ["a"]})
    manifest = Manifest(version=1, concepts=(entry, unsorted))
    (tmp_path / "library.yaml").write_bytes(dump_manifest(manifest))
    assert read_manifest(tmp_path) == manifest
    assert b"null" not in dump_manifest(manifest)


def test_an_added_concept_keeps_the_hands_of_its_pictures(
    library: ConceptLibrary, fox: Concept, draw: Draw
) -> None:
    sorted_fox = Concept(**{**vars(fox), "picture_hands": ("film", "film", "comic")})
    grown = library.add(sorted_fox, [draw(1), draw(2), draw(3)])
    stored = grown.get("fox")
    assert stored.picture_hands == ("film", "comic", "film")
    assert stored.hands == ("film", "comic")
    assert [path.name for path in stored.picture_files] == ["0.png", "2.png", "1.png"]
    assert library.get("cat").hands == ("",)
    gone = grown.remove("fox")
    assert gone.digest == library.digest
    assert not list((library.folder / "pictures" / "fox").glob("*.png"))


def test_a_hand_is_named_for_every_picture_or_for_none(
    library: ConceptLibrary, fox: Concept, draw: Draw
) -> None:
    half = Concept(**{**vars(fox), "picture_hands": ("film",)})
    with pytest.raises(NoDecisionError, match="1 hands are named for 2 pictures") as error:
        library.add(half, [draw(1), draw(2)])
    assert error.value.reason is ErrorReason.CONCEPT_PICTURES_INVALID
    unnamed = Concept(**{**vars(fox), "picture_hands": ("film", "")})
    with pytest.raises(NoDecisionError, match="hands"):
        library.add(unnamed, [draw(1), draw(2)])


def test_a_folder_is_a_hand_and_a_folder_of_folders_is_several(tmp_path: Path) -> None:
    for name in ("mascot/Comic Strip/1.png", "mascot/Comic Strip/2.JPG", "mascot/film/1.webp"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    (tmp_path / "mascot" / "film" / "readme.txt").write_bytes(b"")
    found = gather([tmp_path / "mascot"])
    assert [(path.name, hand) for path, hand in found] == [
        ("1.png", "comic-strip"),
        ("2.JPG", "comic-strip"),
        ("1.webp", "film"),
    ]
    loose = [tmp_path / "mascot" / "film" / "1.webp", tmp_path / "missing.png"]
    assert gather(loose) == [(path, "") for path in loose]


def test_folders_that_are_called_alike_are_hands_of_their_own(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("a/shots", "b/shots", "太郎", "花子")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(b"")
    found = gather([*folders, tmp_path / "a" / ".." / "a" / "shots"])
    assert [hand for _, hand in found] == ["shots", "shots-2", "hand", "hand-2", "shots"]


def test_pictures_whose_hand_nobody_can_tell_are_refused(tmp_path: Path) -> None:
    (tmp_path / "film").mkdir()
    with pytest.raises(NoDecisionError, match="holds no picture"):
        gather([tmp_path / "film"])
    (tmp_path / "film" / "1.png").write_bytes(b"")
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(NoDecisionError, match="beside folders"):
        gather([tmp_path / "film", tmp_path / "1.png"])
    with pytest.raises(NoDecisionError, match="pictures beside folders"):
        gather([tmp_path])


def test_the_facts_of_a_manifest_without_hands_have_no_new_field(library: ConceptLibrary) -> None:
    entry = read_manifest(library.folder).concepts[0]
    assert "hands" not in json.loads(entry.model_dump_json(exclude_none=True))
