"""The Containerfile: what it promises, as hadolint and a parser of its own instructions see it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

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
    installs = [run.arguments for run in named("RUN") if "pip install" in run.arguments]
    assert all("--constraint constraints.txt" in install for install in installs)


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
