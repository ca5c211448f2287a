"""The Containerfile: what it promises, as hadolint and a parser of its own instructions see it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.lock_image import EXTRAS, LOCK, OWN, WITH_TORCH, entries
from tests.helm.conftest import CHART, ROOT

CONTAINERFILE = ROOT / "Containerfile"


@dataclass(frozen=True)
class Instruction:
    """One instruction, lines joined.

    Attributes:
        stage: name of the stage that it is in; empty before the first.
    """

    stage: str
    name: str
    arguments: str


def instructions() -> Iterator[Instruction]:
    text = re.sub(r"^\s*#.*\n", "", CONTAINERFILE.read_text(), flags=re.MULTILINE)
    stage = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip():
            name, _, arguments = line.strip().partition(" ")
            if name == "FROM":
                stage = arguments.split(" AS ")[1]
            yield Instruction(stage, name, arguments.strip())


ALL = list(instructions())


def named(name: str) -> list[Instruction]:
    return [one for one in ALL if one.name == name]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, CONTAINERFILE], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_bases_are_named_by_the_builder_with_a_digest() -> None:
    assert [(one.stage, one.arguments.split(" AS ")[0]) for one in named("FROM")] == [
        ("builder", "${BASE_IMAGE}"),
        ("builder-cpu", "builder"),
        ("runtime", "${BASE_IMAGE}"),
        ("cuda", "runtime"),
        ("cpu", "runtime"),
    ]
    assert ALL[0] == Instruction("", "ARG", "BASE_IMAGE"), "a default would be an old digest"
    first = next(one for one in ALL if one.name == "RUN")
    assert first.stage == "builder"
    for base, accepted in (("python:3.11", False), (f"python@sha256:{'a' * 64}", True)):
        shell = f"BASE_IMAGE={base}\n{first.arguments}"
        done = subprocess.run(["sh", "-c", shell], capture_output=True, check=False, timeout=10)
        assert (done.returncode == 0) is accepted


@pytest.mark.parametrize("stage", ["cpu", "cuda"])
def test_the_server_runs_as_a_number_that_is_not_root(stage: str) -> None:
    *_, user, run = [one for one in ALL if one.stage == stage]
    assert user == Instruction(stage, "USER", "65532:65532")
    assert run.arguments == '["python3", "-c", "import loragate_server.app.running"]'
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert values["runAs"] == {"user": 65532, "group": 65532}


def test_everything_copied_exists_and_is_not_ignored() -> None:
    assert not named("ADD"), "COPY takes files of this tree only"
    wanted = (ROOT / ".containerignore").read_text().splitlines()
    copied = set()
    for copy in named("COPY"):
        if "--from=" in copy.arguments:
            continue
        *sources, _ = copy.arguments.split()
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in wanted, source
            copied.add(source)
    assert {line[1:] for line in wanted if line.startswith("!")} == copied
    assert "*" in wanted


def test_the_image_brings_wheels_and_no_sources() -> None:
    later = {
        copy.stage: copy.arguments for copy in named("COPY") if not copy.stage.startswith("builder")
    }
    assert later == {
        "runtime": "LICENSE /usr/share/doc/loragate/LICENSE",
        "cuda": "--from=builder /opt/loragate /opt/loragate",
        "cpu": "--from=builder-cpu /opt/loragate /opt/loragate",
    }
    wheels = [run for run in named("RUN") if "pip wheel" in run.arguments]
    assert [run.stage for run in wheels] == ["builder"]
    assert {run.stage for run in named("RUN") if "pip" in run.arguments} == {
        "builder",
        "builder-cpu",
    }


def test_every_package_but_those_of_torch_is_held_to_its_hash() -> None:
    installs = [
        install
        for run in named("RUN")
        for install in re.findall(r"pip (?:install|wheel) ([^;&]*)", run.arguments)
    ]
    index = '${TORCH_INDEX:+--index-url "${TORCH_INDEX}"}'
    assert [" ".join(install.split()) for install in installs] == [
        "--no-deps --require-hashes --requirement requirements-image.txt",
        f"{index} --no-deps --require-hashes --requirement torch.txt",
        f"{index} --constraint constraints.txt torch",
        "--no-deps --no-build-isolation --wheel-dir /wheels ./client ./kernels ./server",
        "--no-deps --no-index /wheels/*.whl",
    ]


@pytest.mark.parametrize(("sha256", "held"), [("", False), ("a" * 64, True)])
def test_torch_is_held_to_the_hash_that_the_builder_names(
    sha256: str, held: bool, tmp_path: Path
) -> None:
    """The very command of the file, with a pip that only notes what it is asked for."""
    [command] = [run.arguments for run in named("RUN") if "TORCH_SHA256" in run.arguments]
    asked = tmp_path / "asked"
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncat torch.txt >> {asked} 2>/dev/null; true\n')
    pip.chmod(0o755)
    (tmp_path / "constraints.txt").write_text((ROOT / "constraints.txt").read_text())
    shell = command.replace("/opt/loragate/bin/pip", str(pip))
    environment = {"TORCH_SHA256": sha256, "PATH": "/usr/bin:/bin"}
    subprocess.run(["sh", "-c", shell], check=True, cwd=tmp_path, env=environment, timeout=10)
    text = asked.read_text()
    assert "install --constraint constraints.txt torch\n" in text
    assert ("install --no-deps --require-hashes --requirement torch.txt\n" in text) is held
    found = re.search(r"^torch==[0-9.]+ --hash=sha256:a{64}$", text, re.MULTILINE)
    assert (found is not None) is held


LOCKED = {
    canonicalize_name(requirement.name): (requirement, hashes)
    for entry in entries(LOCK.read_text())
    for requirement, hashes in [
        (
            Requirement(entry.partition(" \\\n")[0]),
            re.findall(r"--hash=sha256:([0-9a-f]{64})", entry),
        )
    ]
}


def test_every_locked_package_has_one_version_and_hashes() -> None:
    assert len(LOCKED) > 90
    for requirement, hashes in LOCKED.values():
        [one] = requirement.specifier
        assert one.operator == "==", requirement
        assert hashes, requirement


def test_the_lock_has_the_versions_that_the_tree_is_tested_with() -> None:
    pinned = {
        canonicalize_name(requirement.name): requirement.specifier
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
        for requirement in [Requirement(line)]
    }
    both = set(pinned) & set(LOCKED)
    assert len(both) > 40
    for name in both:
        assert LOCKED[name][0].specifier == pinned[name]


def test_the_lock_has_all_that_the_image_needs() -> None:
    """A package that is added to a distribution has to be locked as well."""
    for folder in OWN.values():
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
        optional = project.get("optional-dependencies", {})
        extras = [name for name in EXTRAS.split(",") if name in optional]
        for text in [*project["dependencies"], *(one for name in extras for one in optional[name])]:
            wanted = Requirement(text)
            name = canonicalize_name(wanted.name)
            if name in OWN or WITH_TORCH.match(f"{name}=="):
                continue
            [locked] = LOCKED[name][0].specifier
            assert wanted.specifier.contains(locked.version), text


def test_it_has_labels_and_leaves_health_to_the_probes() -> None:
    labels = " ".join(one.arguments for one in named("LABEL"))
    for label in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{label}=" in labels
    assert not named("HEALTHCHECK")
    assert not named("VOLUME"), "it would make the root file system writable there"
    [ports] = named("EXPOSE")
    assert ports.arguments.split() == ["50051", "9464"]
    assert [one.arguments for one in named("ENTRYPOINT")] == ['["loragate-server"]']


def test_no_secret_and_no_registry_is_written_down() -> None:
    text = CONTAINERFILE.read_text()
    assert not re.search(r"https?://", text)
    assert not re.search(r"(?i)password|secret|_token", text)
