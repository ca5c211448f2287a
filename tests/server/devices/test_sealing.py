"""What tells of people is given as HMAC: equal values match, and nobody reads them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from loragate_server.cli.command import application
from loragate_server.config.devices import AuditDevice, FileTarget
from loragate_server.record.devices.line import LogLine, read_line
from loragate_server.record.devices.sealing import (
    PREFIX,
    KeyFileError,
    Sealer,
    read_keys,
    sealed_value,
)
from loragate_server.record.recorder import Recorder
from loragate_server.record.verdict import Caller
from testkit.waiting import eventually
from tests.server.devices.logs import Logged, lines_of, record

LIMIT_S = 20.0
ALICE = Caller(
    service="images",
    tenant="shop of Alice",
    request_id="for alice@example.com",
    identity="CN=alice",
    adapter_names=("alice in Paris", ""),
)


def key_file(folder: Path, *keys: bytes) -> Path:
    file = folder / "hmac.keys"
    file.write_text("".join(base64.b64encode(key).decode() + "\n" for key in keys))
    return file


def line(entry: dict[str, Any]) -> LogLine:
    head = {"seq": 7, "prev": "0" * 64, "time": "2026-05-04T09:30:00+00:00"}
    return read_line(json.dumps({**head, **entry}).encode())[0]


def sealed(file: Path, entry: dict[str, Any]) -> dict[str, Any]:
    [one] = Sealer(file).sealed([line(entry)])
    found: dict[str, Any] = json.loads(one.text)
    return found


def test_the_caller_and_his_names_are_sealed_and_the_rest_is_left(
    recording: Callable[..., Recorder], tmp_path: Path
) -> None:
    key = os.urandom(32)
    target = FileTarget(path=tmp_path / "second.jsonl")
    device = AuditDevice(name="second", file=target, hmac_key_file=key_file(tmp_path, key))
    recorder = recording(device)
    record(recorder, ALICE)
    assert eventually(lambda: target.path.exists() and len(lines_of(target.path)) == 1, LIMIT_S)
    assert b"lice" not in target.path.read_bytes()
    [original] = lines_of(tmp_path / "replica0" / "decisions.jsonl")
    entry, own = json.loads(target.path.read_bytes()), json.loads(original)
    assert entry.pop("sha256") == hashlib.sha256(original).hexdigest()
    caller = entry["verdict"].pop("caller")
    wanted = hmac.new(key, b"CN=alice", "sha256").hexdigest()
    assert caller["identity"] == f"hmac-sha256:{wanted}"
    assert caller["adapter_names"][1] == ""
    assert own["verdict"].pop("caller")["identity"] == "CN=alice"
    assert entry == own


def test_reviewers_and_what_they_wrote_are_sealed_wherever_they_stand(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"k" * 32)
    event = {"reviewer": "alice", "reason": "my sister", "review_id": "r1", "action": "approve"}
    ruling = {"reviewers": ["alice", "bob"], "reason": "my sister", "review_id": "r1"}
    review = sealed(file, {"kind": "review", "review": {"event": event, "ruling": ruling}})
    decision = sealed(
        file,
        {
            "kind": "decision",
            "verdict": {
                "basis": {
                    "rulings": [ruling],
                    "adapters": [{"config_json": '{"p":"/home/alice"}'}],
                },
                "decision": {
                    "reasons": [
                        {"code": "review_approved", "message": "alice did", "plain": ""},
                        {"code": "no_concept_learned", "message": "None of 3.", "plain": ""},
                    ]
                },
            },
        },
    )
    for one in (review, decision):
        assert "alice" not in json.dumps(one)
        assert "sister" not in json.dumps(one)
    assert review["review"]["event"]["review_id"] == "r1"
    assert review["review"]["event"]["reviewer"] == review["review"]["ruling"]["reviewers"][0]
    reasons = decision["verdict"]["decision"]["reasons"]
    assert reasons[0]["message"].startswith(PREFIX)
    assert reasons[1]["message"] == "None of 3."


def test_who_changes_the_concept_library_and_why_is_sealed(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"k" * 32)
    event = {"person": "alice", "reason": "my sister asked", "step": "propose", "detail": ""}
    change = {"event": event, "proposal": {"concept_id": "mascot", "name": "Mascot"}}
    entry = sealed(file, {"kind": "note", "note": {"code": "concept_change", "change": change}})
    said = entry["note"]["change"]["event"]
    assert said["person"] == sealed_value(b"k" * 32, "alice")
    assert said["reason"].startswith(PREFIX)
    assert (said["step"], said["detail"]) == ("propose", "")
    assert entry["note"]["change"]["proposal"] == change["proposal"]


def test_lines_of_other_shapes_and_odd_names_are_sealed_without_a_stumble(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"k" * 32)
    caller: dict[str, Any] = {"service": None, "tenant": "\ud800\x00", "adapter_names": "odd"}
    entry = sealed(file, {"kind": "decision", "verdict": {"caller": caller, "basis": None}})
    assert entry["verdict"]["caller"]["service"] is None
    assert entry["verdict"]["caller"]["tenant"].startswith(PREFIX)
    assert sealed(file, {"kind": "note", "note": {"code": "x"}})["note"] == {"code": "x"}


def test_equal_values_match_under_a_key_and_not_under_the_next(
    logged: Callable[..., Logged], tmp_path: Path
) -> None:
    old, new = b"o" * 32, b"n" * 32
    file = key_file(tmp_path, old)
    target = FileTarget(path=tmp_path / "second.jsonl")
    here = logged(AuditDevice(name="second", file=target, hmac_key_file=file))

    def names(count: int) -> list[str]:
        here.log.append_decision({"caller": {"identity": "alice"}}, binding=True)
        assert eventually(
            lambda: target.path.exists() and len(lines_of(target.path)) == count, LIMIT_S
        )
        lines = lines_of(target.path)
        return [json.loads(one)["verdict"]["caller"]["identity"] for one in lines]

    names(1)
    assert len(set(names(2))) == 1
    key_file(tmp_path, new, old)
    found = names(3)
    assert found[0] == found[1] != found[2]
    done = CliRunner().invoke(application, ["log", "hmac", "alice", "--key-file", str(file)])
    assert done.output.split() == [found[2], found[0]]


def test_without_its_key_a_device_gets_nothing(
    logged: Callable[..., Logged], tmp_path: Path
) -> None:
    file = key_file(tmp_path, b"k" * 32)
    target = FileTarget(path=tmp_path / "second.jsonl")
    here = logged(AuditDevice(name="second", file=target, hmac_key_file=file))
    file.rename(tmp_path / "gone")
    here.write(1)
    assert eventually(lambda: here.devices.behind()["second"][0] == 1, LIMIT_S)
    assert eventually(
        lambda: (
            (
                here.observer.registry.get_sample_value(
                    "loragate_device_failures_total", {"device": "second"}
                )
                or 0
            )
            > 0
        ),
        LIMIT_S,
    )
    assert not target.path.exists() or target.path.read_bytes() == b""
    (tmp_path / "gone").rename(file)
    assert eventually(lambda: len(lines_of(target.path)) == 1, LIMIT_S)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "holds no key"), (b"c2hvcnQ=\n", "not 32 bytes"), (b"\xff\xfe", "it is no text"),
     (b"a" * 31 + b"!\n", "key 1")],
)  # fmt: skip
def test_a_file_of_no_keys_is_refused_with_how_to_make_one(
    tmp_path: Path, content: bytes, said: str
) -> None:
    (file := tmp_path / "keys").write_bytes(content)
    with pytest.raises(KeyFileError, match=said):
        read_keys(file)


def test_the_command_finds_the_key_of_the_device(tmp_path: Path) -> None:
    file = key_file(tmp_path, b"k" * 32)
    config = tmp_path / "loragate.yaml"
    config.write_text(
        f"audit_devices:\n  - {{name: siem, hmac_key_file: {file}, file: {{path: /x/y}}}}\n"
    )
    wanted = PREFIX + hmac.new(b"k" * 32, b"alice", "sha256").hexdigest()
    command = ["log", "hmac", "-", "--config", str(config)]
    for more in ([], ["--device", "siem"]):
        done = CliRunner().invoke(application, [*command, *more], input="alice\n")
        assert done.output == f"{wanted}\n"
    done = CliRunner().invoke(application, [*command, "--device", "other"], input="alice\n")
    assert done.exit_code == 2
    assert "there are: siem" in done.output
