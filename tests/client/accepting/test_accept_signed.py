"""One audit serves a fleet: a signed verdict from elsewhere lets in what it allows, unasked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from loragate import (
    AdapterBlocked,
    AsyncAuditClient,
    AuditClient,
    Verdict,
)
from loragate.cli import main
from loragate.fail_open import audit_totals
from loragate.integrations._settings import gatekeeper_from_environment
from loragate.integrations._together import audit_together
from loragate.integrations.diffusers import guard
from loragate.reference import AdapterReference
from loragate.testing import FakeAuditServer
from loragate.v1 import audit_pb2
from testkit.signing import key_set
from tests.client.accepting.asking import (
    LARGE,
    NO_SERVICE,
    NOWHERE,
    OTHERS,
    WEIGHTS,
    Keep,
    is_accepted,
)
from tests.client.lies import Lie
from tests.client.signed_lies import KEY, KEY_ID, STRANGER, sign
from tests.client.tiny_pipeline import tiny_pipeline, write_adapter


def test_a_signed_verdict_lets_in_without_a_service(
    client: AuditClient, keep: Keep, base: str, tmp_path: Path
) -> None:
    decision_id = keep(strength=0.7)
    (path := tmp_path / "a.safetensors").write_bytes(WEIGHTS)
    before = audit_totals()["accepted_signed"]
    use: dict[str, Any] = {"strength": 0.7, "expected_base_digest": base, "loader": "comfyui"}
    for result in (
        client.audit(WEIGHTS, **use),
        client.audit_file(path, **use),
        client.audit_stored([AdapterReference(data=WEIGHTS)], **use),
        *client.watch(WEIGHTS, **use),
    ):
        assert result.allowed
        assert (result.decision_id, result.signed_by) == (decision_id, KEY_ID)
        assert result.audited_bytes == WEIGHTS
    assert audit_totals()["accepted_signed"] == before + 4


async def test_the_client_for_asyncio_accepts_it_too(
    keep: Keep, base: str, keys: Path, folder: Path
) -> None:
    keep()
    async with AsyncAuditClient(NOWHERE, require_signature=keys, accept_signed=folder) as client:
        assert (await client.audit(WEIGHTS, expected_base_digest=base)).allowed
        watched = [one async for one in client.watch(WEIGHTS, expected_base_digest=base)]
        assert [one.allowed for one in watched] == [True]


def test_it_is_accepted_for_exactly_what_it_names(
    client: AuditClient, keep: Keep, base: str
) -> None:
    keep(strength=0.7, base_model="tiny")
    right: dict[str, Any] = {"strength": 0.7, "expected_base_digest": base}
    assert is_accepted(client, **right)
    assert is_accepted(client, base_model="tiny", loader="sglang", **right)
    for other in (
        {"strength": 0.8},
        {"strength": None},
        {"text_encoder_strength": 0.0},
        {"expected_base_digest": "e" * 64},
        {"base_model": "sdxl"},
        {"loader": "another"},
        {"dry_run": True},
        {"concept_ids": ["cat"]},
    ):
        assert not is_accepted(client, **{**right, **other}), other
    assert not is_accepted(client, OTHERS, **right)
    assert not is_accepted(client, [WEIGHTS, OTHERS], **right)
    assert not is_accepted(client, "/models/a.safetensors", **right)


def _ended(verdict: audit_pb2.Verdict) -> None:
    verdict.decided_at.seconds -= 7200
    verdict.expires_at.seconds -= 7200


def _pilot(verdict: audit_pb2.Verdict) -> None:
    verdict.mode = audit_pb2.MODE_PILOT


def test_what_has_run_out_or_is_no_binding_allow_is_not_accepted(
    client: AuditClient, service: FakeAuditServer, keep: Keep, base: str, folder: Path
) -> None:
    def fresh(name: str, change: Lie) -> None:
        for path in folder.iterdir():
            path.unlink()
        decision_id = keep(OTHERS)
        message = audit_pb2.Verdict()
        message.CopyFrom(service._decisions[decision_id])
        change(message)
        sign(message)
        (folder / f"{decision_id}.json").write_bytes(message.dsse_envelope)
        assert is_accepted(client, OTHERS, expected_base_digest=base) == (name == "honest"), name

    fresh("honest", lambda verdict: None)
    fresh("run out", _ended)
    fresh("a pilot", _pilot)
    fresh("a dry run", lambda v: (setattr(v, "dry_run", True), setattr(v, "binding", False)))
    fresh("not binding", lambda v: setattr(v, "binding", False))
    fresh("some concepts", lambda v: v.restricted_to_concept_ids.append("cat"))


def test_a_verdict_against_the_use_keeps_it_out_whatever_else_allows_it(
    client: AuditClient, service: FakeAuditServer, keep: Keep, base: str, folder: Path
) -> None:
    keep()
    assert is_accepted(client, expected_base_digest=base)
    service.default = Verdict.BLOCK
    block = keep()
    assert not is_accepted(client, expected_base_digest=base)
    (folder / f"{block}.json").unlink()
    assert is_accepted(client, expected_base_digest=base)


def test_the_folder_and_the_keys_are_followed(
    client: AuditClient, keep: Keep, base: str, folder: Path, keys: Path
) -> None:
    assert not is_accepted(client, expected_base_digest=base)
    decision_id = keep()
    assert is_accepted(client, expected_base_digest=base)
    keys.write_bytes(key_set({"2026-07": STRANGER}))
    assert not is_accepted(client, expected_base_digest=base)
    keys.write_bytes(key_set({KEY_ID: KEY, "2026-07": STRANGER}))
    assert is_accepted(client, expected_base_digest=base)
    (folder / f"{decision_id}.json").write_bytes(b"{}")
    assert not is_accepted(client, expected_base_digest=base)


def test_what_is_no_verdict_is_told_once_and_spoils_nothing(
    client: AuditClient, keep: Keep, base: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep()
    (folder / "note.json").write_text("{}")
    (folder / "link.json").symlink_to("/nowhere")
    (folder / "README.md").write_text("Verdicts of the fleet.")
    for _ in range(3):
        assert is_accepted(client, expected_base_digest=base)
    assert caplog.text.count("note.json is not accepted: It is no envelope of a verdict") == 1
    assert "link.json" not in caplog.text
    assert "README" not in caplog.text


def test_a_folder_that_goes_away_lets_nothing_in(
    client: AuditClient, keep: Keep, base: str, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keep()
    folder.rename(folder.with_name("elsewhere"))
    assert not is_accepted(client, expected_base_digest=base)
    assert f"No signed verdict of {folder} is accepted" in caplog.text


def test_adapters_together_are_accepted_as_one_use(
    client: AuditClient, keep: Keep, base: str
) -> None:
    both = [AdapterReference(data=WEIGHTS, strength=0.7), AdapterReference(data=OTHERS)]
    keep(both)
    assert is_accepted(client, both, expected_base_digest=base)
    assert is_accepted(client, both[::-1], expected_base_digest=base)
    assert not is_accepted(client, both[0], expected_base_digest=base)
    assert not is_accepted(client, [*both, both[1]], expected_base_digest=base)


def test_adapters_that_no_message_holds_together_are_accepted(
    client: AuditClient, service: FakeAuditServer, base: str, folder: Path
) -> None:
    both = [AdapterReference(data=data) for data in (LARGE, WEIGHTS)]
    with AuditClient(service.target) as asking:
        made = audit_together(asking, both)
    (folder / "both.json").write_bytes(made.signed)
    accepted = audit_together(client, both, {"expected_base_digest": base})
    assert accepted.decision_id == made.decision_id


def test_which_base_model_is_meant_has_to_be_said(client: AuditClient, keep: Keep) -> None:
    keep()
    with pytest.raises(ValueError, match="for one base model only"):
        client.audit(WEIGHTS)


def test_settings_that_cannot_be_are_refused(folder: Path, keys: Path) -> None:
    with pytest.raises(ValueError, match="needs to know whose signatures"):
        AuditClient(accept_signed=folder)
    with pytest.raises(FileNotFoundError):
        AuditClient(accept_signed="/nowhere", require_signature=keys)


def test_the_environment_sets_up_guards_that_accept_it(
    keep: Keep, base: str, folder: Path, keys: Path
) -> None:
    keep(strength=0.5)
    variables = {
        "LORAGATE_TARGET": NOWHERE,
        "LORAGATE_TIMEOUT_S": "0.2",
        "LORAGATE_BASE_DIGEST": base,
        "LORAGATE_REQUIRE_SIGNATURE": os.fspath(keys),
        "LORAGATE_ACCEPT_SIGNED": os.fspath(folder),
    }
    reference = AdapterReference(data=WEIGHTS, strength=0.5)
    keeper = gatekeeper_from_environment("comfyui", variables)
    assert keeper.admit("a", [reference]).signed_by == KEY_ID
    revoked = {**variables, "LORAGATE_REVOKED_KEYS": KEY_ID}
    with pytest.raises(ValueError, match="all are revoked"):
        gatekeeper_from_environment("comfyui", revoked)
    without = {**variables, "LORAGATE_ACCEPT_SIGNED": ""}
    with pytest.raises(AdapterBlocked):
        gatekeeper_from_environment("comfyui", without).admit("a", [reference])


def test_a_guarded_pipeline_loads_what_is_allowed_elsewhere_and_nothing_else(
    client: AuditClient, keep: Keep, base: str, tmp_path: Path
) -> None:
    path = write_adapter(tmp_path)
    keep(path.read_bytes())
    keep(path.read_bytes(), strength=0.6)
    pipeline = tiny_pipeline()
    with guard(pipeline, client, base_digest=base):
        pipeline.load_lora_weights(path, adapter_name="a")
        pipeline.set_adapters(["a"], [0.6])
        assert pipeline.get_active_adapters() == ["a"]
        with pytest.raises(NO_SERVICE):
            pipeline.set_adapters(["a"], [0.9])


def test_a_folder_is_admitted_at_the_start_by_verdicts_from_elsewhere(
    service: FakeAuditServer,
    base: str,
    folder: Path,
    keys: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (loras := tmp_path / "loras").mkdir()
    for name, data in (("a", WEIGHTS), ("b", OTHERS)):
        (loras / f"{name}.safetensors").write_bytes(data)
    ask = ["gate-dir", str(loras), "--base-digest", base]
    assert main([*ask, "--target", service.target, "--save-signed", str(folder)]) == 0
    service.stop()
    offline = [*ask, "--target", NOWHERE, "--timeout", "0.5", "--accept-signed", str(folder)]
    capsys.readouterr()
    assert main([*offline, "--require-signature", str(keys)]) == 0
    assert "2 allowed by signed verdicts, unasked" in capsys.readouterr().err
    (loras / "c.safetensors").write_bytes(b"new here")
    assert main([*offline, "--require-signature", str(keys), "--json"]) == 3
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["verdict"] for one in told] == ["ALLOW", "ALLOW", None]
    assert main(offline) == 3
    assert "whose signatures are believed" in capsys.readouterr().err
    assert main([*offline, "--require-signature", str(keys), "--strength", "0.5"]) == 3


def test_many_threads_accept_it_while_the_folder_changes(
    client: AuditClient, keep: Keep, base: str, folder: Path
) -> None:
    decision_id = keep()
    copy, ended = (folder / f"{decision_id}.json").read_bytes(), threading.Event()
    wrong: list[BaseException] = []

    def load() -> None:
        try:
            while not ended.is_set():
                assert is_accepted(client, expected_base_digest=base)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(50):
        (folder / f"copy-{number % 5}.json").write_bytes(
            copy[: 100 * number] if number % 2 else copy
        )
    ended.set()
    for thread in threads:
        thread.join()
    assert wrong == []


THOUSAND = """
import json, socket, sys, time
from pathlib import Path

def no_network(*arguments):
    raise OSError("this process speaks to nobody")

socket.socket.connect = no_network
from loragate import AuditClient

keys, folder, adapter, base = sys.argv[1:]
allowed, began = 0, time.monotonic()
with AuditClient("127.0.0.1:1", require_signature=keys, accept_signed=folder) as client:
    for _ in range(1000):
        result = client.audit_file(adapter, expected_base_digest=base, strength=0.7)
        allowed += result.allowed and result.audited_bytes == Path(adapter).read_bytes()
print(json.dumps({"allowed": allowed, "seconds": time.monotonic() - began}))
"""


def test_a_thousand_loads_in_another_process_rest_on_one_verdict_without_a_server(
    service: FakeAuditServer, keep: Keep, base: str, folder: Path, keys: Path, tmp_path: Path
) -> None:
    (path := tmp_path / "a.safetensors").write_bytes(WEIGHTS)
    keep(strength=0.7)
    service.stop()
    words = [sys.executable, "-c", THOUSAND, keys, folder, path, base]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    told = json.loads(done.stdout)
    assert told["allowed"] == 1000
    assert told["seconds"] < 30
