"""Verdicts are signed by every key within its time, or there is no verdict."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey
from sqlalchemy import create_engine, text

from loragate_server.config.signing import SigningKey, SigningSection
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.policy.decision import Mode, VerdictKind
from loragate_server.record.codec import decode_verdict
from loragate_server.record.recorder import Recorder
from loragate_server.record.signing.key_set import key_set
from loragate_server.record.signing.keys import (
    KeyUnusableError,
    open_keys,
    public_keys,
    read_public,
    warnings,
)
from loragate_server.record.signing.signer import VerdictSigner
from loragate_server.record.signing.statement import EXTENSION, statement
from loragate_server.record.verdict import Caller, Verdict
from testkit import evidence as made
from testkit.signing import new_key, openssl_accepts, write_private, write_public

NOW = datetime(2026, 1, 2, tzinfo=UTC)
DAY = timedelta(days=1)


def section(*keys: SigningKey) -> SigningSection:
    return SigningSection(keys=keys)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return SigningKey(id="one", file=write_private(new_key(), tmp_path / "one.pem"))


@pytest.fixture
def signing(
    open_recorder: Callable[..., Recorder], database_url: str, log_path: Path, key: SigningKey
) -> Recorder:
    return open_recorder(database_url, log_path, signer=VerdictSigner(section(key)))


def record(recorder: Recorder, decision: Any, **options: Any) -> Verdict:
    return recorder.record(decision, Caller("forge"), stage_times_s={}, **options)


def told(verdict: Verdict) -> dict[str, Any]:
    payload = json.loads(base64.b64decode(json.loads(verdict.envelope)["payload"]))
    return dict(payload)


def test_a_signed_verdict_is_found_again_with_its_signature(
    signing: Recorder, decision: Any
) -> None:
    verdict = record(signing, decision())
    assert verdict.envelope
    assert signing.get(verdict.decision_id) == verdict
    assert signing.list()[0] == [verdict]


def test_the_log_has_the_digest_of_the_signed_form_and_not_the_form(
    signing: Recorder, decision: Any, log_path: Path
) -> None:
    verdict = record(signing, decision())
    [line] = log_path.read_bytes().splitlines()
    logged = decode_verdict(json.loads(line)["verdict"])
    assert logged.envelope_sha256 == hashlib.sha256(verdict.envelope).hexdigest()
    assert json.loads(verdict.envelope)["payload"].encode() not in line


def test_a_signed_form_that_was_changed_in_the_database_is_not_told(
    signing: Recorder, decision: Any, database_url: str
) -> None:
    verdict = record(signing, decision())
    other = record(signing, decision(VerdictKind.BLOCK))
    _set_envelope(database_url, verdict, other.envelope)
    with pytest.raises(NoDecisionError, match="not the logged one"):
        signing.get(verdict.decision_id)


def test_a_decision_whose_signed_form_is_gone_is_told_without_one(
    signing: Recorder, decision: Any, database_url: str
) -> None:
    verdict = record(signing, decision())
    _set_envelope(database_url, verdict, None)
    told = signing.get(verdict.decision_id)
    assert told == replace(verdict, envelope=b"")
    assert told.envelope_sha256 == verdict.envelope_sha256


def _set_envelope(database_url: str, verdict: Verdict, envelope: bytes | None) -> None:
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE audits SET envelope = :e WHERE decision_id = :d"),
            {"e": envelope, "d": verdict.decision_id},
        )
    engine.dispose()


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
@pytest.mark.needs("openssl")
def test_openssl_accepts_the_signature_and_no_change_of_what_is_signed(
    tmp_path: Path, kind: Any
) -> None:
    private, stranger = new_key(kind), new_key(kind)
    entry = SigningKey(id="one", file=write_private(private, tmp_path / "one.pem"))
    envelope = VerdictSigner(section(entry)).signed(made.verdict()).envelope
    public = write_public(private, tmp_path / "one.pub")
    assert openssl_accepts(envelope, public, tmp_path)
    assert not openssl_accepts(envelope, write_public(stranger, tmp_path / "no.pub"), tmp_path)
    changed = json.loads(envelope)
    changed["payload"] = base64.b64encode(
        base64.b64decode(changed["payload"]).replace(b'"ALLOW"', b'"ALLOT"')
    ).decode()
    assert not openssl_accepts(json.dumps(changed).encode(), public, tmp_path)


def test_another_implementation_of_dsse_accepts_it(tmp_path: Path, key: SigningKey) -> None:
    envelope = Envelope.from_dict(
        json.loads(VerdictSigner(section(key)).signed(made.verdict()).envelope)
    )
    public = SSlibKey.from_crypto(public_keys(section(key))["one"], "one")
    assert envelope.verify([public], 1) == {"one": public}
    envelope.payload += b" "
    with pytest.raises(VerificationError):
        envelope.verify([public], 1)


def test_what_is_signed_names_all_that_the_verdict_is_bound_to(key: SigningKey) -> None:
    found = made.evidence(
        adapters=(made.adapter("a" * 64, denoiser_strength=0.7), made.adapter("d" * 64)),
        loaders=("diffusers",),
        calibration_digest="e" * 64,
    )
    verdict = made.verdict(made.decision(VerdictKind.ALLOW, found))
    whole = told(VerdictSigner(section(key)).signed(verdict))
    assert whole["_type"] == "https://in-toto.io/Statement/v1"
    assert whole["predicateType"] == "https://slsa.dev/verification_summary/v1"
    assert [one["digest"]["sha256"] for one in whole["subject"]] == ["a" * 64, "d" * 64]
    predicate = whole["predicate"]
    assert predicate["verificationResult"] == "PASSED"
    said = predicate[EXTENSION]
    assert [one["denoiserStrength"] for one in said["adapters"]] == [0.7, 1.0]
    assert said["digests"] == {
        "baseModel": "b" * 64,
        "library": "c" * 64,
        "policy": verdict.decision.policy_digest,
        "calibration": "e" * 64,
    }
    assert said["loaders"] == ["diffusers"]
    assert datetime.fromisoformat(said["expiresAt"]) == verdict.expires_at
    assert datetime.fromisoformat(said["decidedAt"]) == verdict.decided_at


def test_no_measured_number_is_signed() -> None:
    found = made.evidence(made.concept(7.654321, 0.0123456, degree=98.7654))
    shown = json.dumps(statement(made.verdict(made.decision(VerdictKind.BLOCK, found)), "urn:x:y"))
    for number in ("7.65", "0.0123", "98.7", "0.5"):
        assert number not in shown


@pytest.mark.parametrize(
    "verdict",
    [
        made.verdict(made.decision(VerdictKind.BLOCK)),
        made.verdict(made.decision(VerdictKind.REVIEW)),
        made.verdict(made.decision(VerdictKind.ALLOW, mode=Mode.PILOT)),
        made.verdict(dry_run=True),
        made.verdict(made.decision(VerdictKind.ALLOW, made.evidence(restricted_to=("cat",)))),
    ],
    ids=["block", "review", "pilot", "dry run", "some concepts"],
)
def test_only_a_binding_enforced_allow_has_passed(verdict: Verdict) -> None:
    predicate = statement(verdict, "urn:x:y")["predicate"]
    assert predicate["verificationResult"] == "FAILED"
    assert predicate["verifiedLevels"] == []


def test_while_keys_overlap_each_of_them_signs(tmp_path: Path) -> None:
    old, new = new_key(), new_key("p256")
    keys = section(
        SigningKey(
            id="old", file=write_private(old, tmp_path / "old.pem"), not_after=NOW + 2 * DAY
        ),
        SigningKey(id="new", file=write_private(new, tmp_path / "new.pem"), not_before=NOW + DAY),
    )
    clock = [NOW]
    signer = VerdictSigner(keys, now=lambda: clock[0])
    signed = []
    for clock[0] in (NOW, NOW + DAY, NOW + 2 * DAY):
        envelope = json.loads(signer.signed(made.verdict()).envelope)
        signed.append([one["keyid"] for one in envelope["signatures"]])
    assert signed == [["old"], ["old", "new"], ["new"]]


def test_without_a_key_within_its_time_nothing_is_recorded(
    open_recorder: Callable[..., Recorder], decision: Any, tmp_path: Path, key: SigningKey
) -> None:
    clock = [NOW]
    ending = key.model_copy(update={"not_after": NOW + DAY})
    signer = VerdictSigner(section(ending), now=lambda: clock[0])
    recorder = open_recorder(f"sqlite:///{tmp_path}/a.db", tmp_path / "log", signer=signer)
    signer.check()
    clock[0] += DAY
    for act in (signer.check, lambda: record(recorder, decision())):
        with pytest.raises(NoDecisionError, match="mend signing") as caught:
            act()
        assert caught.value.reason is ErrorReason.SIGNING_UNAVAILABLE
    assert recorder.list()[0] == []
    assert (tmp_path / "log").read_bytes() == b""


def test_a_key_that_fails_lets_nothing_be_recorded(
    open_recorder: Callable[..., Recorder],
    decision: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: SigningKey,
) -> None:
    signer = VerdictSigner(section(key))
    recorder = open_recorder(f"sqlite:///{tmp_path}/a.db", tmp_path / "log", signer=signer)

    def fail(_: bytes) -> Any:
        raise ConnectionError("the key service is away")

    monkeypatch.setattr(signer._keys[0].signer, "sign", fail)
    with pytest.raises(NoDecisionError, match="'one' did not sign") as caught:
        record(recorder, decision())
    assert caught.value.metadata == {"key": "one"}
    assert recorder.list()[0] == []
    assert (tmp_path / "log").read_bytes() == b""


def test_what_was_recorded_before_signing_is_told_without_a_signature(
    open_recorder: Callable[..., Recorder], decision: Any, tmp_path: Path, key: SigningKey
) -> None:
    place = (f"sqlite:///{tmp_path}/a.db", tmp_path / "log")
    before = open_recorder(*place)
    verdict = record(before, decision())
    before.close()
    after = open_recorder(*place, signer=VerdictSigner(section(key)))
    assert after.get(verdict.decision_id) == verdict
    assert after.get(verdict.decision_id).envelope == b""


def _unusable(path: Path, now: datetime = NOW, **fields: Any) -> str:
    with pytest.raises(KeyUnusableError) as caught:
        open_keys(section(SigningKey(id="one", file=path, **fields)), now)
    return str(caught.value)


def test_a_key_that_cannot_sign_is_refused_with_cause_and_remedy(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in _unusable(tmp_path / "none.pem")
    readable = write_private(new_key(), tmp_path / "readable.pem")
    for mode in (0o644, 0o604, 0o620):
        readable.chmod(mode)
        assert f"(mode {mode:04o}); chmod 0400" in _unusable(readable)
    readable.chmod(0o440)
    assert open_keys(section(SigningKey(id="one", file=readable)), NOW)
    (other := tmp_path / "rsa.pem").touch(mode=0o600)
    pkcs8 = (Encoding.PEM, PrivateFormat.PKCS8)
    other.write_bytes(rsa.generate_private_key(65537, 2048).private_bytes(*pkcs8, NoEncryption()))
    assert "is not an Ed25519 or ECDSA P-256 key" in _unusable(other)
    other.write_bytes(new_key().private_bytes(*pkcs8, BestAvailableEncryption(b"x")))
    assert "is encrypted" in _unusable(other)
    other.write_bytes(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA==\n")
    assert "holds no private key" in (message := _unusable(other))
    assert "c2VjcmV0" not in message


def test_keys_of_which_none_signs_now_are_refused(key: SigningKey) -> None:
    assert key.file is not None
    assert "no key for now" in _unusable(key.file, not_after=NOW)
    assert "no key for now" in _unusable(key.file, not_before=NOW + DAY)


def test_a_key_that_has_ended_may_be_gone_and_is_warned_of(key: SigningKey) -> None:
    ended = SigningKey(id="gone", file=Path("/nowhere.pem"), not_after=NOW)
    assert [one.id for one in open_keys(section(ended, key), NOW)] == ["one"]
    [line] = warnings(section(ended, key), NOW)
    assert "gone signs no more" in line


def test_a_key_by_uri_signs_and_has_to_belong_to_its_public_half(tmp_path: Path) -> None:
    private, stranger = new_key(), new_key()
    file = write_private(private, tmp_path / "one.pem")
    right = SigningKey(
        id="one", uri=f"file2:{file}", public_key=write_public(private, tmp_path / "one.pub")
    )
    assert VerdictSigner(section(right)).signed(made.verdict()).envelope
    wrong = right.model_copy(update={"public_key": write_public(stranger, tmp_path / "no.pub")})
    unknown = right.model_copy(update={"uri": "carrier-pigeon:1"})
    for entry, why in ((wrong, "does not match"), (unknown, "Unsupported")):
        with pytest.raises(KeyUnusableError, match=f"signing.keys: one: .*{why}"):
            VerdictSigner(section(entry))


def test_a_key_whose_signature_its_public_half_does_not_bear_out_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: SigningKey
) -> None:
    from securesystemslib.signer import CryptoSigner

    real = CryptoSigner.sign
    monkeypatch.setattr(CryptoSigner, "sign", lambda self, data: real(self, data + b"."))
    with pytest.raises(KeyUnusableError, match="it does not sign"):
        VerdictSigner(section(key))


def test_the_key_set_has_the_public_keys_alone(tmp_path: Path) -> None:
    one, two = new_key(), new_key("p256")
    keys = section(
        SigningKey(id="one", file=write_private(one, tmp_path / "1.pem"), not_after=NOW),
        SigningKey(id="two", file=write_private(two, tmp_path / "2.pem")),
    )
    made_set = key_set(public_keys(keys))
    assert [(entry["kid"], entry["kty"], entry["alg"]) for entry in made_set["keys"]] == [
        ("one", "OKP", "EdDSA"),
        ("two", "EC", "ES256"),
    ]
    assert not any("d" in entry for entry in made_set["keys"])
    assert read_public(write_public(two, tmp_path / "2.pub")) == two.public_key()


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "either file or uri"),
        ({"file": "a", "uri": "hsm:2", "public_key": "b"}, "either file or uri"),
        ({"uri": "hsm:2"}, "belong together"),
        ({"file": "a", "pin_file": "b"}, "pin_file"),
        ({"file": "a", "not_before": NOW, "not_after": NOW}, "before it begins"),
        ({"file": "a", "not_after": datetime(2026, 1, 1)}, "timezone"),
        ({"file": "a", "id": "two words"}, "id"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        SigningKey(**{"id": "one", **fields})


def test_two_keys_with_one_id_are_refused(key: SigningKey) -> None:
    with pytest.raises(ValueError, match="an id twice"):
        section(key, key)
