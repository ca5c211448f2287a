"""The three distributions as somebody installs them: what is in their wheels, and what they say."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path

import pytest

import loragate
import loragate_server

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "client": "loragate",
    "kernels": "loragate_kernels",
    "server": "loragate_server",
}
"""Folder of a distribution to its package."""

LICENSES = {
    "client": {"LICENSE"},
    "kernels": {"LICENSE"},
    "server": {"LICENSE", "NOTICE", "licenses/MIT-fluentui-emoji.txt", "licenses/OFL-1.1.txt"},
}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, zipfile.ZipFile]:
    """The wheel of each folder, built from a copy, since building leaves files behind."""
    place = tmp_path_factory.mktemp("wheels")
    unwanted = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")
    for folder in PACKAGES:
        shutil.copytree(ROOT / folder, place / folder, ignore=unwanted)
    build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [sys.executable, "-m", "pip", *build, "--wheel-dir", place, *(place / f for f in PACKAGES)],
        check=True,
        timeout=120,
    )
    return {
        folder: zipfile.ZipFile(next(place.glob(f"{package}-*.whl")))
        for folder, package in PACKAGES.items()
    }


@pytest.fixture(scope="module")
def metadata(wheels: dict[str, zipfile.ZipFile]) -> Callable[[str], Message]:
    def read(folder: str) -> Message:
        [name] = [name for name in wheels[folder].namelist() if name.endswith("/METADATA")]
        return HeaderParser().parsestr(wheels[folder].read(name).decode())

    return read


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_wheel_has_every_file_of_its_package(
    folder: str, wheels: dict[str, zipfile.ZipFile]
) -> None:
    package = ROOT / folder / PACKAGES[folder]
    files = {
        str(file.relative_to(ROOT / folder))
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert f"{PACKAGES[folder]}/py.typed" in files
    packed = {name for name in wheels[folder].namelist() if ".dist-info/" not in name}
    assert files == packed


KINDS = {
    "client": {".py", ".pyi", ".json", ".j2", ".typed"},
    "kernels": {".py", ".typed"},
    "server": {".py", ".pyi", ".typed", ".css", ".j2", ".json", ".yaml", ".png"}
    | {".safetensors", ".txt", ".mako"},
}
"""Endings of what a package is made of."""


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_wheel_has_nothing_else(folder: str, wheels: dict[str, zipfile.ZipFile]) -> None:
    """Not what working leaves in a folder, and nothing beside the package."""
    names = wheels[folder].namelist()
    [info] = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert {name.partition("/")[0] for name in names} == {PACKAGES[folder], info}
    packed = [name for name in names if not name.startswith(info)]
    assert {Path(name).suffix for name in packed} <= KINDS[folder]
    assert [name for name in packed if any(part[0] == "." for part in Path(name).parts)] == []
    described = {"METADATA", "WHEEL", "RECORD", "top_level.txt", "entry_points.txt"}
    inside = {name.removeprefix(f"{info}/") for name in names if name.startswith(info)}
    assert {name for name in inside if not name.startswith("licenses/")} <= described


@pytest.mark.parametrize("folder", PACKAGES)
def test_the_metadata_name_the_licence_files_that_are_there(
    folder: str, metadata: Callable[[str], Message]
) -> None:
    said = metadata(folder)
    assert tuple(map(int, said["Metadata-Version"].split("."))) >= (2, 4)  # PEP 639
    assert set(said.get_all("License-File", [])) == LICENSES[folder]


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_wheel_has_its_licences(folder: str, wheels: dict[str, zipfile.ZipFile]) -> None:
    names = [name.partition(".dist-info/licenses/") for name in wheels[folder].namelist()]
    assert {name for _, found, name in names if found} == LICENSES[folder]


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_wheel_says_what_it_is(folder: str, metadata: Callable[[str], Message]) -> None:
    said = metadata(folder)
    assert said["License-Expression"] == "Apache-2.0"
    assert said["Description-Content-Type"] == "text/markdown"
    assert said["Requires-Python"] == ">=3.11"
    assert said.get_payload() == (ROOT / folder / "README.md").read_text()
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert len(said.get_all("Project-URL", [])) == 3


def test_the_versions_belong_together(metadata: Callable[[str], Message]) -> None:
    version = metadata("server")["Version"]
    assert version == loragate_server.__version__ == loragate.__version__
    assert {metadata(folder)["Version"] for folder in PACKAGES} == {version}
    needed = metadata("server").get_all("Requires-Dist", [])
    assert {f"loragate~={version}", f"loragate-kernels~={version}"} <= set(needed)


def test_what_not_everybody_has_or_needs_is_not_demanded(
    metadata: Callable[[str], Message],
) -> None:
    [triton] = [
        one for one in metadata("kernels").get_all("Requires-Dist", []) if one.startswith("triton")
    ]
    assert 'sys_platform == "linux"' in triton
    assert 'platform_machine in "x86_64 aarch64"' in triton
    needed = metadata("server").get_all("Requires-Dist", [])
    extras = {"postgres", "s3", "plot", "console", "tracing", "signing", "events", "ray"}
    assert set(metadata("server").get_all("Provides-Extra", [])) == extras
    [driver] = [one for one in needed if one.startswith("psycopg")]
    assert driver.endswith('extra == "postgres"')


@pytest.mark.parametrize(
    "copy", ["client/LICENSE", "kernels/LICENSE", "server/LICENSE", "server/NOTICE"]
)
def test_copies_of_licence_files_are_true(copy: str) -> None:
    """A distribution takes only files of its own folder."""
    assert (ROOT / copy).read_bytes() == (ROOT / Path(copy).name).read_bytes()
