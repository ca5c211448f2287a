"""The hook for pre-commit and the action, run as pre-commit and a runner run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from testkit.engines import forking
from tests.client.scans import HARMLESS, surroundings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """A folder with `loragate`, which runs the sources that are tested."""
    (folder := tmp_path / "bin").mkdir()
    script = folder / "loragate"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(forking())} "$@"\n')
    script.chmod(0o755)
    return folder


@pytest.fixture
def variables(tmp_path: Path, commands: Path) -> dict[str, str]:
    path = os.pathsep.join((str(commands), str(Path(sys.executable).parent), os.environ["PATH"]))
    nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c"}
    committer = {"GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c"}
    given = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": path}
    return surroundings(tmp_path, **given, **nobody, **committer)


@pytest.fixture
def repository(tmp_path: Path, variables: dict[str, str]) -> Path:
    """Somebody's repository that uses the hook as this tree has it."""
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    (place := tmp_path / "repository").mkdir()
    for folder in (hooks, place):
        git(folder, variables, "init", "--quiet")
    git(hooks, variables, "add", ".")
    git(hooks, variables, "commit", "--quiet", "-m", "Hooks")
    revision = git(hooks, variables, "rev-parse", "HEAD").strip()
    wanted = [{"repo": str(hooks), "rev": revision, "hooks": [{"id": "loragate-scan"}]}]
    (place / ".pre-commit-config.yaml").write_text(yaml.safe_dump({"repos": wanted}))
    return place


def git(folder: Path, variables: Mapping[str, str], *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pre_commit(repository: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs the hooks on everything that is staged."""
    git(repository, variables, "add", ".")
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", "--color", "never"],
        cwd=repository,
        env=variables,
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_hook_lets_a_harmless_adapter_in_and_a_pickle_not(
    repository: Path, variables: dict[str, str]
) -> None:
    (repository / "README.md").write_text("nothing to audit")
    assert "Skipped" in pre_commit(repository, variables).stdout
    shutil.copy(HARMLESS, repository / "a style.safetensors")
    done = pre_commit(repository, variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"loragate scan\.+Passed", done.stdout)
    (repository / "Old.PT").write_bytes(b"\x80\x02")
    done = pre_commit(repository, variables)
    assert done.returncode == 1
    assert "exit code: 3" in done.stdout
    assert re.search(r"Old\.PT +ERROR +NOT_SAFETENSORS", done.stdout)


def test_the_hook_is_asked_about_each_kind_of_weights_that_a_scan_knows() -> None:
    [hook] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    for name in ("a.safetensors", "b/A.SFT", "c.bin", "d.ckpt", "e.pt", "f.PTH", "g.gguf"):
        assert re.search(hook["files"], name), name
    for name in ("README.md", "a.safetensors.md", "picture.png", "pt"):
        assert not re.search(hook["files"], name), name


ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())


def run_step(
    name: str, place: Path, variables: Mapping[str, str], **given: str
) -> subprocess.CompletedProcess[str]:
    """Runs one step of the action, as a runner does: inputs first, then bash."""
    [step] = [one for one in ACTION["runs"]["steps"] if one["name"] == name]
    inputs = {key: one["default"] for key, one in ACTION["inputs"].items()}
    inputs |= {key.replace("_", "-"): value for key, value in given.items()}
    filled = {
        key: re.sub(r"\$\{\{ inputs\.([a-z-]+) \}\}", lambda found: inputs[found[1]], value)
        for key, value in step["env"].items()
    }
    assert "${{" not in step["run"], "an input in a script would be run as a part of it"
    (script := place / "step.sh").write_text(step["run"])
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)],
        cwd=place,
        env={**variables, **filled, "GITHUB_OUTPUT": str(place / "outputs")},
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
    )


def test_the_action_scans_reports_and_fails_as_the_command_does(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    (loras := tmp_path / "my loras").mkdir()
    shutil.copy(HARMLESS, loras / "harmless.safetensors")
    (loras / "old.pt").write_bytes(b"")
    paths = "my loras/*.safetensors\n\nmy loras/$(touch run-by-the-shell)*\nmy loras\n"
    done = run_step("Scan", tmp_path, variables, paths=paths)
    assert done.returncode == 3  # the second pattern matches nothing
    assert "as a pattern it matches nothing" in done.stderr
    assert not (tmp_path / "run-by-the-shell").exists()

    more = {"paths": "my loras\n", "options": "--exclude\n*.pt\n"}
    done = run_step("Scan", tmp_path, variables, **more)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs").read_text().splitlines()[-1] == "report=loragate.sarif"
    report = json.loads((tmp_path / "loragate.sarif").read_text())
    assert report["runs"][0]["results"] == []
    assert "ALLOW" in done.stdout

    done = run_step("Scan", tmp_path, variables, paths="my loras", format="csv", report="a.csv")
    assert done.returncode == 3
    assert "NOT_SAFETENSORS" in (tmp_path / "a.csv").read_text()


def test_the_action_installs_what_it_is_told_to(tmp_path: Path, variables: dict[str, str]) -> None:
    place = tmp_path / "installed"
    # pip's own way of writing it: "0" is what --no-build-isolation sets.
    variables |= {"PIP_TARGET": str(place), "PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0"}
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    wanted = f"\n{tmp_path / 'kernels'}\n"
    done = run_step("Install loragate", tmp_path, variables, install=wanted)
    assert done.returncode == 0, done.stderr
    assert (place / "loragate_kernels" / "py.typed").exists()
    assert ACTION["inputs"]["install"]["default"] == "loragate[scan]"
    [step] = [one for one in ACTION["runs"]["steps"] if one["name"] == "Install loragate"]
    assert step["if"] == "${{ inputs.install != '' }}"
