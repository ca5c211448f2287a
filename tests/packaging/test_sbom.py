"""Bills of materials: all that is installed, whatever is known of it, and the same bytes again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from loragate_server import __version__
from loragate_server.config.schema import EMBEDDED_PIPELINE
from loragate_server.models.loading import digest_of_folder
from scripts import sbom
from scripts.lock_image import OWN
from scripts.supply import assets, bom
from scripts.supply.closure import NotLockedError, closure, own_needs, roots
from scripts.supply.described import describe, licence_of, needs_of, read_described
from scripts.supply.lock import read_lock
from testkit.waiting import at_most

ROOT = Path(__file__).parents[2]
EPOCH = 1_760_000_000
IMAGE = f"loragate-image-{__version__}.cdx.json"
SERVER = f"loragate-server-{__version__}.cdx.json"


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return sbom.bills(EPOCH)


@pytest.fixture(scope="module")
def image(made: dict[str, bytes]) -> dict[str, Any]:
    return dict(json.loads(made[IMAGE]))


def named(bill: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in bill["components"]}


def test_there_is_one_for_each_wheel_and_for_the_image(made: dict[str, bytes]) -> None:
    assert set(made) == {f"{name}-{__version__}.cdx.json" for name in (*OWN, "loragate-image")}


@pytest.mark.parametrize("kind", [*OWN, "loragate-image"])
def test_each_is_valid_by_the_schema(made: dict[str, bytes], kind: str) -> None:
    text = made[f"{kind}-{__version__}.cdx.json"].decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert json.loads(text)["specVersion"] == "1.6"


def test_the_command_writes_the_same_bytes(
    made: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", str(EPOCH))
    sbom.main(["--out", str(tmp_path / "new" / "folder")])
    written = {file.name: file.read_bytes() for file in (tmp_path / "new" / "folder").iterdir()}
    assert written == made
    assert capsys.readouterr().out.count("bytes, valid") == len(made)
    with pytest.raises(SystemExit, match=r"sbom: .*loragate-0\.1\.0-py3-none-any\.whl"):
        sbom.main(["--dist", str(tmp_path)])


@pytest.mark.long
def test_another_process_in_another_place_makes_the_same_bytes(
    made: dict[str, bytes], tmp_path: Path
) -> None:
    other = {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": str(EPOCH)}
    subprocess.run(
        [sys.executable, "-m", "scripts.sbom", "--out", tmp_path],
        cwd=ROOT,
        env=os.environ | other,
        check=True,
        capture_output=True,
        timeout=at_most(60),
    )
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == made


def test_the_serial_number_comes_of_the_content(made: dict[str, bytes]) -> None:
    _, later = sbom.bill("loragate", EPOCH + 1)
    numbers = {json.loads(data)["serialNumber"] for data in (*made.values(), later)}
    assert len(numbers) == len(made) + 1
    assert all(re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", one) for one in numbers)


def test_what_is_no_bill_by_the_schema_is_never_written() -> None:
    with pytest.raises(bom.InvalidBomError):
        bom.made(bom.subject("image", "1", "no digest"), [], {}, EPOCH)


def test_the_image_has_each_locked_package_with_the_hashes_of_the_lock(
    image: dict[str, Any],
) -> None:
    found = named(image)
    for name, locked in read_lock().items():
        [files] = found[name]["externalReferences"]
        assert files["type"] == "distribution"
        assert tuple(sorted(one["content"] for one in files["hashes"])) == locked.hashes
        assert found[name]["version"] == locked.version
    loose = {
        name
        for name, one in found.items()
        if {"name": "loragate:locked", "value": "false"} in one.get("properties", [])
    }
    assert loose == {"torch", *OWN}


def test_every_package_has_a_licence_of_spdx(image: dict[str, Any]) -> None:
    for name, one in named(image).items():
        [licence] = one["licenses"]
        assert licence.get("expression") or licence["license"]["id"], name


def test_a_wheel_has_what_it_demands_and_no_extra(made: dict[str, bytes]) -> None:
    client = json.loads(made[f"loragate-{__version__}.cdx.json"])
    assert client["metadata"]["component"]["purl"] == f"pkg:pypi/loragate@{__version__}"
    assert set(named(client)) == {
        "googleapis-common-protos",
        "grpcio",
        "protobuf",
        "typing-extensions",
    }
    server = named(json.loads(made[SERVER]))
    assert {"torch", "loragate", "loragate-kernels", "grpcio", "emoji-tiny"} <= set(server)
    assert not {"psycopg", "s3fs", "matplotlib", "securesystemslib"} & set(server)


def test_who_demands_whom_is_in_it(image: dict[str, Any]) -> None:
    needs = {one["ref"]: one.get("dependsOn", []) for one in image["dependencies"]}
    root = image["metadata"]["component"]["bom-ref"]
    assert set(needs[root]) == {f"pkg:pypi/{name}@{__version__}" for name in OWN}
    assert any(one.startswith("pkg:pypi/psycopg-binary@") for ref in needs for one in needs[ref])
    refs = {one["bom-ref"] for one in image["components"]} | {root}
    assert set(needs) == refs
    assert {one for each in needs.values() for one in each} <= refs


def test_the_embedded_model_is_there_by_the_digest_that_verdicts_name(
    image: dict[str, Any],
) -> None:
    model = named(image)["emoji-tiny"]
    assert model["type"] == "machine-learning-model"
    assert model["licenses"] == [{"license": {"id": "Apache-2.0", "acknowledgement": "declared"}}]
    [digest] = model["hashes"]
    assert digest == {"alg": "SHA-256", "content": digest_of_folder(EMBEDDED_PIPELINE)}
    files = {one["name"]: one["hashes"][0]["content"] for one in model["components"]}
    assert len(files) == sum(path.is_file() for path in EMBEDDED_PIPELINE.rglob("*"))
    for name, sha256 in files.items():
        assert hashlib.sha256((ROOT / "server" / name).read_bytes()).hexdigest() == sha256


def test_the_pictures_of_each_artist_have_licence_and_digest(image: dict[str, Any]) -> None:
    """The digest is what the command of the documentation prints."""
    text = (ROOT / "docs" / "supply-chain.md").read_text()
    [command] = re.findall(r"^find .*$", text, re.MULTILINE)
    licences = {}
    for hand in assets.HANDS:
        done = subprocess.run(
            ["bash", "-c", command.replace("noto-", f"{hand}-")],
            cwd=ROOT / "server",
            capture_output=True,
            text=True,
            check=True,
        )
        one = named(image)[f"emoji-tiny-pictures-{hand}"]
        assert one["type"] == "data"
        assert one["hashes"] == [{"alg": "SHA-256", "content": done.stdout.split()[0]}]
        [licence] = one["licenses"]
        licences[hand] = licence.get("expression") or licence["license"]["id"]
    assert licences == {"noto": "OFL-1.1 AND Apache-2.0", "twemoji": "CC-BY-4.0", "fluent": "MIT"}


def test_every_file_of_the_assets_is_in_it(image: dict[str, Any]) -> None:
    there = {path for path in assets.ASSETS.rglob("*") if path.is_file()}
    files = {*(one.path for one in (*assets.model_files(), *assets.data_files()))}
    counted = sum(one.count for one in assets.picture_sets())
    assert len(files) + counted == len(there)
    found = set(named(image)) | {one["name"] for one in named(image)["emoji-tiny"]["components"]}
    assert files <= found


def test_a_wheel_is_named_by_its_digest_and_so_is_a_build_of_torch() -> None:
    _, data = sbom.bill("loragate-kernels", EPOCH, "a" * 64, "b" * 64)
    bill = json.loads(data)
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": "a" * 64}]
    assert "externalReferences" not in named(bill)["torch"]  # whose wheel does not choose it
    _, data = sbom.bill("image", EPOCH, "", "b" * 64)
    [files] = named(json.loads(data))["torch"]["externalReferences"]
    assert files["hashes"] == [{"alg": "SHA-256", "content": "b" * 64}]


def test_what_is_written_down_of_packages_is_what_they_say() -> None:
    """After a change of the lock: `make setup`, then `python -m scripts.sbom --describe`."""
    wanted = [one for kind in sbom.KINDS for one in roots(kind)]
    assert read_described() == describe(
        wanted, lambda name: own_needs(name) if name in OWN else None
    )


def test_what_is_demanded_and_not_locked_is_refused() -> None:
    locked, described = read_lock(), read_described()
    short = {name: one for name, one in locked.items() if name != "psycopg-binary"}
    with pytest.raises(NotLockedError, match="psycopg-binary is demanded, and the lock"):
        closure(roots("image"), short, described)
    old = {**locked, "grpcio": replace(locked["grpcio"], version="0")}
    with pytest.raises(NotLockedError, match="grpcio is locked at 0"):
        closure(roots("loragate"), old, described)
    with pytest.raises(NotLockedError, match=r"loragate demands .*, of which nothing is known"):
        closure(roots("loragate"), locked, {})


@pytest.mark.parametrize(
    ("said", "classifiers", "licence"),
    [
        ({"License-Expression": "mit"}, [], "MIT"),
        ({"License": "Apache-2.0"}, ["License :: OSI Approved :: MIT License"], "Apache-2.0"),
        ({"License": "3-Clause BSD License"}, [], "BSD-3-Clause"),
        ({"License": "a whole\ntext"}, ["License :: OSI Approved :: MIT License"], "MIT"),
        ({}, ["License :: Other/Proprietary License"], "Other/Proprietary License"),
        ({}, ["Programming Language :: Python"], ""),
    ],
)
def test_a_licence_is_read_from_what_metadata_declare(
    said: dict[str, str], classifiers: list[str], licence: str
) -> None:
    assert licence_of(said, classifiers) == licence


def test_demands_are_those_of_the_platform_that_is_described() -> None:
    found = needs_of(
        [
            "always",
            "windows; sys_platform == 'win32'",
            "old; python_version < '3.11'",
            "more[binary]; extra == 'all'",
            "Odd_Name; extra == 'all' and sys_platform == 'linux'",
        ]
    )
    assert found == {
        "": (("always", ""),),
        "all": (("more", ""), ("more", "binary"), ("odd-name", "")),
    }
