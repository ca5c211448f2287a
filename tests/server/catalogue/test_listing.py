"""What a source lists, and how it is refused where it cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.listing import SourceError, open_source
from loragate_server.config.intake import IntakeSection

DIGEST = "ab" * 32


def listed(source: object) -> list[Entry]:
    return list(open_source(str(source)).entries())


def test_a_folder_lists_its_weights_in_order_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b/two.safetensors", "a/one.safetensors", "a/readme.md", "zero.safetensors"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [Path(one.location).relative_to(tmp_path) for one in listed(tmp_path)]
    assert [str(one) for one in found] == [
        "zero.safetensors",
        "a/one.safetensors",
        "b/two.safetensors",
    ]


def test_a_folder_opens_itself_for_intake_and_nothing_beside_it(tmp_path: Path) -> None:
    given = IntakeSection(roots=(Path("/srv/loras"),))
    opened = open_source(str(tmp_path)).settings(given)
    assert opened.roots == (Path("/srv/loras"), tmp_path)
    assert opened.enabled_schemes == frozenset()


def test_manifests_in_json_lines_and_parquet_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"path": "sub/../one.safetensors", "sha256": DIGEST.upper(), "name": "One", "likes": 3},
        {"uri": "s3://bucket/two.safetensors", "sha256": None, "name": None, "likes": None},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    columns = {name: [row.get(name) for row in rows] for name in (*rows[0], "uri")}
    parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    first, second = listed(tmp_path / "m.jsonl")
    place = str(tmp_path / "one.safetensors")
    assert first == Entry(place, DIGEST.upper(), DIGEST, "One", '{"likes": 3}')
    assert second.remote
    assert second.reference.uri == "s3://bucket/two.safetensors"
    again = [(one.location, one.sha256, one.name) for one in listed(tmp_path / "m.parquet")]
    assert again == [(one.location, one.sha256, one.name) for one in (first, second)]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("{", "row 1 is no JSON"),
        ("[" * 100_000, "row 1 is no JSON"),
        ("[]", "row 1 is no object"),
        ("{}", "exactly one of path and uri"),
        ('{"path": "a", "uri": "s3://b/c"}', "exactly one of path and uri"),
        ('{"path": 7}', "is no text"),
        ('{"path": "a", "sha256": "12"}', "64 hexadecimal digits"),
        ('{"uri": "a.safetensors"}', "without a scheme"),
        ('{"path": "s3://b/c"}', "call it uri"),
        (json.dumps({"path": "a", "about": "x" * 70_000}), "letters of metadata"),
    ],
)
def test_a_manifest_is_refused_with_the_row_and_what_is_wrong(
    tmp_path: Path, line: str, fault: str
) -> None:
    (tmp_path / "m.jsonl").write_text(line)
    with pytest.raises(SourceError, match=fault):
        listed(tmp_path / "m.jsonl")


def test_what_is_no_source_is_refused_with_what_would_be_one(tmp_path: Path) -> None:
    (tmp_path / "m.csv").touch()
    (tmp_path / "m.parquet").write_text("no parquet")
    for source, fault in (
        (tmp_path / "nowhere", "No such file"),
        (tmp_path / "m.csv", "neither a folder"),
        ("gopher://host/loras", "cannot be listed: use a folder"),
        (tmp_path / "m.parquet", "as Parquet"),
    ):
        with pytest.raises(SourceError, match=fault):
            listed(source)
