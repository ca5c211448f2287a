"""The API: its style, its compatibility, its stubs, and what the packages copy from it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from loragate.v1 import audit_pb2, concept_pb2, error_reason_pb2
from loragate_server.errors import ErrorReason

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto"
IMAGE = PROTO / "buf.image.binpb"
BUF = ROOT / "build/tools/node_modules/@bufbuild/buf-linux-x64/bin/buf"
CONFIG = "loragate/v1/audit_grpc_service_config.json"

needs_buf = [
    pytest.mark.needs("buf"),
    pytest.mark.skipif(
        not BUF.exists(), reason="buf is missing; scripts/install_test_tools.sh installs it"
    ),
]


def buf(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BUF), *map(str, arguments)], capture_output=True, text=True)


class TestWithBuf:
    pytestmark = needs_buf

    def test_style_and_format_are_clean(self) -> None:
        assert buf("lint", PROTO).stdout == ""
        assert buf("format", "--diff", "--exit-code", PROTO).stdout == ""

    def test_nothing_breaks_the_committed_image(self) -> None:
        done = buf("breaking", PROTO, "--against", IMAGE)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ("VerdictKind verdict = 2;", "string verdict = 2;", "verdict"),
            ("  string decision_id = 1;", "  string decision = 1;", "decision_id"),
            ("VERDICT_KIND_BLOCK = 3;", "VERDICT_KIND_STOP = 3;", "VERDICT_KIND_BLOCK"),
            ("  bool cached = 16;\n", "", "cached"),
        ],
    )
    def test_a_change_that_breaks_callers_is_reported(
        self, tmp_path: Path, old: str, new: str, says: str
    ) -> None:
        copy = Path(shutil.copytree(PROTO, tmp_path / "proto"))
        file = copy / "loragate/v1/audit.proto"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        done = buf("breaking", copy, "--against", IMAGE)
        assert done.returncode != 0
        assert says in done.stdout

    def test_a_new_field_is_welcome(self, tmp_path: Path) -> None:
        copy = Path(shutil.copytree(PROTO, tmp_path / "proto"))
        file = copy / "loragate/v1/audit.proto"
        text = file.read_text()
        file.write_text(
            text.replace("bool cached = 16;", "bool cached = 16;\n  // New.\n  bool new = 99;")
        )
        assert buf("breaking", copy, "--against", IMAGE).returncode == 0


def test_the_stubs_are_fresh() -> None:
    done = subprocess.run(
        [str(ROOT / "scripts/proto.sh"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_stub_is_noticed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for part in ("proto", "scripts", "client/loragate/v1"):
        shutil.copytree(ROOT / part, copy / part)
    venv = ROOT / "build/proto-venv"
    if venv.exists():
        (copy / "build").mkdir()
        (copy / "build/proto-venv").symlink_to(venv)
    stub = copy / "client/loragate/v1/audit_pb2.pyi"
    stub.write_text(stub.read_text() + "# edited by hand\n")
    done = subprocess.run(
        [str(copy / "scripts/proto.sh"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "run 'make proto'" in done.stderr


def test_the_servers_reasons_are_those_of_the_api() -> None:
    names = error_reason_pb2.ErrorReason.keys()
    api = {name.removeprefix("ERROR_REASON_") for name in names} - {"UNSPECIFIED"}
    assert {reason.value for reason in ErrorReason} == api
    assert {reason.name for reason in ErrorReason} == api
    assert all(len(reason) <= 63 for reason in api)


def test_the_sdk_ships_the_service_config_of_the_api() -> None:
    assert (PROTO / CONFIG).read_bytes() == (ROOT / "client" / CONFIG).read_bytes()


def test_the_service_config_covers_every_method_once() -> None:
    config = json.loads((PROTO / CONFIG).read_text())
    named = [
        (name["service"], name["method"])
        for method in config["methodConfig"]
        for name in method["name"]
    ]
    services = [
        *audit_pb2.DESCRIPTOR.services_by_name.values(),
        *concept_pb2.DESCRIPTOR.services_by_name.values(),
    ]
    there = [(service.full_name, method.name) for service in services for method in service.methods]
    assert sorted(named) == sorted(there)
    assert all(method["timeout"].endswith("s") for method in config["methodConfig"])


def test_what_changes_the_library_is_never_retried() -> None:
    config = json.loads((PROTO / CONFIG).read_text())
    for method in config["methodConfig"]:
        if {"CreateConcept", "DeleteConcept"} & {name["method"] for name in method["name"]}:
            assert "retryPolicy" not in method
