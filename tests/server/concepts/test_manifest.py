"""library.yaml: everything that is not a valid manifest is refused, and says where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loragate_server.concepts.library import ConceptLibrary
from loragate_server.concepts.manifest import (
    ConceptEntry,
    Manifest,
    dump_manifest,
    read_manifest,
)
from loragate_server.errors import ErrorReason, NoDecisionError

Write = Callable[..., None]


def refused(folder: Path) -> str:
    """The message with which the library is refused."""
    with pytest.raises(NoDecisionError) as error:
        ConceptLibrary.open(folder)
    assert error.value.reason is ErrorReason.LIBRARY_EMPTY
    assert str(folder) in error.value.message
    return error.value.message


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    assert "library.yaml" in refused(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "missing")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version: 1",
        b"concepts: []",
        b"- 1\n- 2",
        b"version: [1",
        b"version: 1\nversion: 1\nconcepts: []",
        b"\xff\xfe\x00",
        b"!!python/object/apply:os.system ['true']",
        b"just words",
    ],
)
def test_a_manifest_that_is_not_one_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "library.yaml").write_bytes(content)
    refused(tmp_path)


def test_another_version_is_refused(folder: Path, entries: list[Any], write: Write) -> None:
    write(entries, version=2)
    assert "version" in refused(folder)


def test_an_unknown_field_of_the_manifest_is_named(
    folder: Path, entries: list[Any], write: Write
) -> None:
    write(entries, owner="someone")
    assert "owner" in refused(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", 3),
        ("id", "Cat"),
        ("id", "-cat"),
        ("id", "cat/../dog"),
        ("id", 7),
        ("name", ""),
        ("name", "x" * 201),
        ("name", "a cat\nor two"),
        ("name", "\x85"),
        ("name", "\ud800"),
        ("category", "Animals!"),
        ("severity", "extreme"),
        ("role", "suspect"),
        ("prompts", [""]),
        ("prompts", "a cat"),
        ("pictures", []),
        ("pictures", ["shots/cat-0.png"] * 65),
        ("pictures", "shots/cat-0.png"),
        ("pictures", [None]),
        ("pictures", ["shots/cat-0.png\0"]),
    ],
)
def test_a_bad_field_of_a_concept_is_named(
    folder: Path, entries: list[Any], write: Write, field: str, value: Any
) -> None:
    write([entries[0], {**entries[1], field: value}, *entries[2:]])
    assert f"concepts.1.{field}" in refused(folder)


@pytest.mark.parametrize("field", ["id", "name", "category", "severity", "role"])
def test_a_missing_field_of_a_concept_is_named(
    folder: Path, entries: list[Any], write: Write, field: str
) -> None:
    write([{name: value for name, value in entries[0].items() if name != field}, *entries[1:]])
    assert f"concepts.0.{field}" in refused(folder)


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "shots/../../secret.png", "..", "shots/.."]
)
def test_a_picture_outside_the_folder_is_refused_by_its_name(
    folder: Path, entries: list[Any], write: Write, name: str
) -> None:
    (folder.parent / "secret.png").write_bytes((folder / "shots" / "cat-0.png").read_bytes())
    write([{**entries[0], "pictures": [name]}, *entries[1:]])
    assert f"picture {name!r} is not inside" in refused(folder)


def test_an_id_that_stands_there_twice_is_named(
    folder: Path, entries: list[Any], write: Write
) -> None:
    write([*entries, entries[3]])
    assert "'neutral-1' stands there twice" in refused(folder)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
ENTRIES = st.builds(
    ConceptEntry,
    id=st.from_regex(r"[a-z0-9][a-z0-9-]{0,63}", fullmatch=True),
    name=TEXT,
    category=st.from_regex(r"[a-z0-9][a-z0-9_-]{0,31}", fullmatch=True),
    severity=st.sampled_from(["low", "medium", "high", "critical"]),
    role=st.sampled_from(["forbidden", "neutral"]),
    prompts=st.lists(TEXT, max_size=3).map(tuple),
    pictures=st.lists(TEXT.map(lambda name: f"p/{name}x"), min_size=1, max_size=3)
    .filter(lambda names: not any(".." in name.split("/") for name in names))
    .map(tuple),
)


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=5, unique_by=lambda entry: entry.id))
def test_a_manifest_that_was_written_reads_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, concepts: list[ConceptEntry]
) -> None:
    folder = tmp_path_factory.mktemp("library")
    manifest = Manifest(version=1, concepts=tuple(concepts))
    (folder / "library.yaml").write_bytes(dump_manifest(manifest))
    assert read_manifest(folder) == manifest
