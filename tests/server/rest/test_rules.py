"""Every method has one address, and openapi.json describes what is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from loragate_server.rest import problem
from loragate_server.rest.door import OPENAPI
from loragate_server.rest.rules import rules
from loragate_server.rpc.access import METHODS
from loragate_server.rpc.errors import CODES

ROOT = Path(__file__).parents[3]
BUF = ROOT / "build/tools/node_modules/@bufbuild/buf-linux-x64/bin/buf"


def test_every_method_has_one_address() -> None:
    assert sorted(rule.rpc for rule in rules()) == sorted(METHODS)
    assert len({(rule.verb, rule.path) for rule in rules()}) == len(METHODS)


def test_what_a_path_names_is_a_field() -> None:
    for rule in rules():
        for name in re.findall(r"{(\w+)}", rule.path):
            assert name in rule.method.input_type.fields_by_name


def test_every_status_of_a_refusal_has_one_of_http() -> None:
    named = set(problem.STATUSES) | {grpc.StatusCode.INTERNAL}
    assert set(CODES.values()) <= named
    assert all(400 <= status < 600 for status in problem.STATUSES.values())


def test_the_description_names_every_method_and_its_permission() -> None:
    paths = json.loads(OPENAPI.read_text())["paths"]
    found = {one["operationId"]: one for path in paths.values() for one in path.values()}
    for method, permission in METHODS.items():
        assert f"`{permission}`" in found[method.rpartition("/")[2]]["description"]


@pytest.mark.needs("buf")
@pytest.mark.skipif(
    not BUF.exists(), reason="buf is missing; scripts/install_test_tools.sh installs it"
)
def test_the_description_is_fresh() -> None:
    command = [sys.executable, "-m", "scripts.openapi", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
