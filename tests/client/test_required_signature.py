"""Where a signature is required, no door of this package believes an answer without one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loragate import AuditClient, Internal
from loragate.signed import TrustedKeys
from loragate.testing import FakeAuditServer
from testkit.lanes import daily
from testkit.signing import envelope_of, key_set, new_key, statement_of
from tests.client import doors
from tests.client.doors import ASKED, DOORS, SMALL, gets_in
from tests.client.signed_lies import KEY, KEY_ID, REVOKED, REVOKED_ID, SIGNED_LIES, sign


@pytest.fixture(scope="module")
def service() -> Iterator[FakeAuditServer]:
    with FakeAuditServer() as server:
        yield server


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrustedKeys:
    """Those that every door is told to trust, one of them revoked."""
    (file := tmp_path / "keys.jwks").write_bytes(key_set({KEY_ID: KEY, REVOKED_ID: REVOKED}))
    trusted = TrustedKeys(file, revoked=[REVOKED_ID])
    monkeypatch.setattr(
        doors,
        "SETTINGS",
        {"on_unavailable": "block", "timeout": 20, "require_signature": trusted},
    )
    monkeypatch.setenv("LORAGATE_REQUIRE_SIGNATURE", os.fspath(file))
    monkeypatch.setenv("LORAGATE_REVOKED_KEYS", REVOKED_ID)
    return trusted


FEW = (
    "no signature",
    "the signature of a stranger",
    "a revoked key",
    "signed, then: another adapter",
)
SLOW = ("comfyui graph", "comfyui path", "comfyui tensors", "diffusers")
"""Doors that take long to open, and beside which another one asks in the same way: the node of
ComfyUI hears every lie daily, and so does every client."""


@pytest.mark.parametrize(
    ("door", "told"),
    daily(
        *((door, "few lies" if door in SLOW else "every lie") for door in sorted(DOORS)),
        of=[
            *((door, "every lie") for door in sorted(DOORS)),
            *((door, "few lies") for door in SLOW),
        ],
    ),
)
def test_no_door_believes_a_wrong_signature_and_every_door_the_right_one(
    service: FakeAuditServer, keys: TrustedKeys, tmp_path: Path, door: str, told: str
) -> None:
    (folder := tmp_path / "loras").mkdir()
    service.falsify = sign
    assert DOORS[door](service.target, folder)
    believed = []
    for name in FEW if told == "few lies" else SIGNED_LIES:
        service.falsify = SIGNED_LIES[name]
        if DOORS[door](service.target, folder):
            believed.append(name)
    assert believed == []
    service.falsify = sign
    assert DOORS[door](service.target, folder)


def test_a_key_that_leaves_the_set_is_believed_no_longer_by_a_client_that_runs(
    service: FakeAuditServer, keys: TrustedKeys
) -> None:
    service.falsify = sign
    [file] = keys.files
    with AuditClient(service.target, require_signature=keys) as client:
        first = client.audit(SMALL, **ASKED)
        assert (first.allowed, first.signed_by) == (True, KEY_ID)
        file.write_bytes(key_set({"2026-07": new_key()}))
        with pytest.raises(Internal, match=r"A signature is required\. No key that is trusted"):
            client.audit(SMALL, **ASKED)
        file.unlink()
        with pytest.raises(Internal, match="cannot be read any more"):
            client.audit(SMALL, **ASKED)


def test_while_keys_overlap_either_is_enough(service: FakeAuditServer, tmp_path: Path) -> None:
    old, new = new_key(), new_key("p256")
    service.falsify = lambda verdict: setattr(
        verdict, "dsse_envelope", envelope_of(statement_of(verdict), old=old, new=new)
    )
    for name, key in (("old", old), ("new", new)):
        (file := tmp_path / name).write_bytes(key_set({name: key}))
        with AuditClient(service.target, require_signature=file) as client:
            assert client.audit(SMALL, **ASKED).signed_by == name


def test_what_is_on_record_has_to_be_signed_too(
    service: FakeAuditServer, keys: TrustedKeys
) -> None:
    service.falsify = sign
    with AuditClient(service.target, require_signature=keys) as client:
        made = client.audit(SMALL, **ASKED)
        assert client.get(made.decision_id).signed_by == KEY_ID
        assert next(client.list()).allowed
        for name in ("no signature", "another strength", "signed, then: another adapter"):
            service.falsify = SIGNED_LIES[name]
            with pytest.raises(Internal, match="A signature is required"):
                client.get(made.decision_id)
            with pytest.raises(Internal, match="A signature is required"):
                next(client.list())


def test_without_the_requirement_nobody_looks_at_signatures(service: FakeAuditServer) -> None:
    service.falsify = SIGNED_LIES["the signature of a stranger"]
    with AuditClient(service.target) as client:
        result = client.audit(SMALL, **ASKED)
        assert result.allowed
        assert result.signed
        assert result.signed_by == ""


def test_weights_that_were_judged_with_a_configuration_are_not_those_that_were_sent(
    service: FakeAuditServer, keys: TrustedKeys
) -> None:
    def with_config(verdict: object) -> None:
        statement = statement_of(verdict)  # type: ignore[arg-type]
        body = statement["predicate"]["urn:loragate:verdict:v1"]
        body["adapters"][0]["configSha256"] = "f" * 64
        verdict.dsse_envelope = envelope_of(statement, **{KEY_ID: KEY})  # type: ignore[attr-defined]

    service.falsify = with_config
    with AuditClient(service.target, require_signature=keys) as client:
        with pytest.raises(Internal, match="with an adapter_config"):
            client.audit(SMALL, **ASKED)
        # Of a place the service reads all that is there, and the image server with it.
        assert gets_in(lambda: client.audit("a", **ASKED))
