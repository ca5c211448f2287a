"""The manifest of a library explains itself, and keeps what people wrote into it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from loragate_server.concepts.concept import Concept
from loragate_server.concepts.library import ConceptLibrary, start_library
from loragate_server.concepts.manifest import ConceptEntry, Manifest, read_manifest
from loragate_server.concepts.written import EXPLANATION, explained, rewritten
from loragate_server.config.schema import EMBEDDED_LIBRARY

PICTURE = next(EMBEDDED_LIBRARY.rglob("*.png")).read_bytes()


def entry(concept_id: str, **other: object) -> ConceptEntry:
    return ConceptEntry.model_validate(
        {
            "id": concept_id,
            "name": concept_id.title(),
            "category": "thing",
            "severity": "low",
            "role": "neutral",
            "pictures": [f"{concept_id}.png"],
            **other,
        }
    )


def manifest(*names: str) -> Manifest:
    return Manifest(version=1, concepts=tuple(map(entry, names)))


def test_a_new_library_explains_every_key_in_its_file(tmp_path: Path) -> None:
    start_library(tmp_path / "own", None)
    text = (tmp_path / "own" / "library.yaml").read_text()
    for key in (*ConceptEntry.model_fields, *Manifest.model_fields):
        assert f"# {key} " in text or f"#   {key} " in text, key


def test_the_example_in_the_explanation_is_a_valid_concept() -> None:
    lines = EXPLANATION.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("# - id:"))
    example = "\n".join(line.removeprefix("# ") for line in lines[begin:])
    [one] = YAML(typ="safe").load(example)
    assert ConceptEntry.model_validate(one).hands is not None


def test_the_explanation_stays_when_concepts_come(tmp_path: Path) -> None:
    library = start_library(tmp_path / "own", None)
    for name in ("cat", "dog"):
        library = library.add(Concept(name, name, "thing", "low", "neutral"), [PICTURE])
    text = (tmp_path / "own" / "library.yaml").read_text()
    assert text.startswith(EXPLANATION)
    assert "\n- id: cat\n" in text
    assert {one.concept_id for one in library.concepts} == {"cat", "dog"}


def test_what_people_wrote_stays_beside_what_stays() -> None:
    text = (
        "# ours\nversion: 1\nconcepts:\n  # the first\n- {id: a, name: A, category: thing, "
        "severity: low, role: neutral, pictures: [a.png]}   # ask Anna\n"
        "- id: b # old\n  name: B\n  category: thing\n  severity: low\n  role: neutral\n"
        "  pictures: [b.png]\n"
    )
    changed = rewritten(text, manifest("a", "c"))
    assert "# ours" in changed
    assert "# the first" in changed
    assert "# ask Anna" in changed
    assert "# old" not in changed
    assert Manifest.model_validate(YAML(typ="safe").load(changed)) == manifest("a", "c")


@pytest.mark.parametrize(
    "text",
    [
        "not: a manifest\n",
        "concepts: 3\n",
        "version: 1\nconcepts: [{id: a}]\n",
        "{ broken",
        "version: 1\nconcepts:\n- &x {id: a, name: Other, category: thing, severity: low, "
        "role: neutral, pictures: [a.png]}\n",
        "",
    ],
)
def test_the_content_counts_where_the_text_cannot_be_kept(text: str) -> None:
    wanted = manifest("a", "b")
    changed = rewritten(text, wanted)
    assert Manifest.model_validate(YAML(typ="safe").load(changed)) == wanted


def test_names_in_any_script_and_many_hands_survive(tmp_path: Path) -> None:
    odd = entry(
        "odd",
        name="悪い: 'キャラ' # 1",
        pictures=None,
        hands={"one": ["1.png"], "two": ["ä b.png"]},
    )
    before = explained(manifest("a"))
    wanted = Manifest(version=1, concepts=(entry("a"), odd))
    (tmp_path / "library.yaml").write_text(rewritten(before, wanted), "utf-8")
    assert read_manifest(tmp_path) == wanted


def test_several_concepts_are_added_together_or_not_at_all(tmp_path: Path) -> None:
    library = start_library(tmp_path / "own", None)
    made = [Concept(name, name, "thing", "low", "neutral") for name in ("cat", "dog", "cat")]
    with pytest.raises(Exception, match="'cat' exists already"):
        library.add_all([(one, [PICTURE]) for one in made])
    assert ConceptLibrary.read(library.folder).concepts == ()
    more = library.add_all([(one, [PICTURE, PICTURE]) for one in made[:2]])
    assert [one.concept_id for one in more.concepts] == ["cat", "dog"]
