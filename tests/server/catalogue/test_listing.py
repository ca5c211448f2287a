"""What a source lists, and how it is refused where it cannot be."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from moto.server import ThreadedMotoServer

from loragate_server.catalogue.entry import Entry
from loragate_server.catalogue.listing import SourceError, open_source
from loragate_server.catalogue.reading import read
from loragate_server.config.intake import IntakeSection

DIGEST = "ab" * 32


ACCOUNT = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], None]]:
    """Puts files into a bucket of a store that speaks as S3 does."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCOUNT["aws_access_key_id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", ACCOUNT["aws_secret_access_key"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", ACCOUNT["region_name"])
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    client = boto3.client("s3", endpoint_url=address, **ACCOUNT)
    client.create_bucket(Bucket="listed")
    yield lambda key, body: client.put_object(Bucket="listed", Key=key, Body=body) and None
    client.close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def listed(source: object) -> list[Entry]:
    return list(open_source(str(source)).entries())


def test_a_folder_lists_its_weights_in_order_and_nothing_else(tmp_path: Path) -> None:
    names = ("b/two.safetensors", "a/one.SafeTensors", "a/readme.md", "zero.safetensors", "c/3.sft")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [Path(one.location).relative_to(tmp_path) for one in listed(tmp_path)]
    assert [str(one) for one in found] == [
        "zero.safetensors",
        "a/one.SafeTensors",
        "b/two.safetensors",
        "c/3.sft",
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
        ('{"path": "a", "path": "b"}', "row 1 has the name 'path' twice"),
        ('{"path": "a", "about": NaN}', "row 1 is no JSON"),
        ("{}", "exactly one of path and uri"),
        ('{"path": "a", "uri": "s3://b/c"}', "exactly one of path and uri"),
        ('{"path": 7}', "is no text"),
        ('{"path": "a", "sha256": "12"}', "64 hexadecimal digits"),
        ('{"uri": "a.safetensors"}', "without a scheme"),
        ('{"path": "s3://b/c"}', "call it uri"),
        (json.dumps({"path": "a", "about": "x" * 70_000}), "letters of metadata"),
        ('{"path": "' + "a" * (1 << 20) + '"}', "row 1 is longer than 1048576 letters"),
        (r'{"path": "a\ud800"}', "is not Unicode"),
        (r'{"path": "a", "name": "\udfff"}', "is not Unicode"),
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


def test_what_cannot_be_looked_into_is_listed_with_its_fault_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fine/one.safetensors", "closed/two.safetensors"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "fine")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.safetensors")).touch()
    exact = os.scandir

    def scandir(path: str) -> Any:  # as for somebody who is not root
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return exact(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = {one.location: one.fault for one in listed(tmp_path)}
    assert found == {
        str(tmp_path / "\\udcff.safetensors"): "Its name is not UTF-8: rename it.",
        str(tmp_path / "elsewhere"): "It is a symbolic link to a folder, which is not followed.",
        str(tmp_path / "fine/one.safetensors"): "",
        str(tmp_path / "closed"): "The folder cannot be listed: Permission denied.",
    }


@pytest.fixture
def deep(tmp_path: Path) -> Iterator[Callable[[str, int], None]]:
    """Makes folders within folders, of whatever depth; they are gone in the end."""

    def make(name: str, count: int) -> None:
        here = os.open(tmp_path, os.O_DIRECTORY)
        for _ in range(count):
            os.mkdir(name, dir_fd=here)
            inner = os.open(name, os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(os.open("end.safetensors", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        os.close(here)

    yield make
    subprocess.run(["rm", "-r", *tmp_path.iterdir()], check=True)


def test_folders_of_any_depth_are_looked_into_as_far_as_a_path_can_be(
    tmp_path: Path, deep: Callable[[str, int], None]
) -> None:
    (tmp_path / "z.safetensors").touch()
    deep("d", 1500)
    deep("x" * 250, 20)
    found = {one.location: one.fault for one in listed(tmp_path)}
    assert found.pop(str(tmp_path / "z.safetensors")) == ""
    assert found.pop(str(Path(tmp_path, *["d"] * 1500, "end.safetensors"))) == ""
    [fault] = found.values()
    assert fault == "The folder cannot be listed: File name too long."


def test_an_entry_with_a_fault_is_refused_with_it_and_nothing_is_read(tmp_path: Path) -> None:
    entry = Entry(str(tmp_path / "closed"), fault="The folder cannot be listed: no.")
    row = read(Entry.of(entry.row), IntakeSection(roots=(tmp_path,)))
    assert row["reason"] == "SOURCE_UNREADABLE"
    assert row["message"] == "The folder cannot be listed: no."
    assert not row["key"]


def test_a_fifo_that_is_named_like_weights_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    [entry] = listed(tmp_path)
    row = read(entry, IntakeSection(roots=(tmp_path,)))
    assert row["reason"] == "PATH_NOT_ALLOWED"


def test_a_bucket_lists_its_weights_and_notices_what_was_replaced_or_configured(
    bucket: Callable[[str, bytes], None],
) -> None:
    for name in ("b/two.safetensors", "one.safetensors", "readme.md"):
        bucket(name, b"1")
    before = listed("s3://listed")
    assert [one.location for one in before] == [
        "s3://listed/b/two.safetensors",
        "s3://listed/one.safetensors",
    ]
    bucket("one.safetensors", b"2")
    bucket("b/adapter_config.json", b"{}")
    after = listed("s3://listed")
    assert [one.location for one in after] == [one.location for one in before]
    assert all(old.version != new.version for old, new in zip(before, after, strict=True))


def test_a_bucket_that_cannot_be_listed_is_refused_without_what_its_error_says(
    bucket: Callable[[str, bytes], None],
) -> None:
    with pytest.raises(SourceError, match="check that it exists") as refused:
        listed("s3://another-bucket")
    assert "127.0.0.1" not in str(refused.value)
