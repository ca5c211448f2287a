"""A signed verdict counts for what it names alone, by a key that is trusted, until it runs out."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loragate import AdapterReference, Mode, Verdict
from loragate.signed import SignatureRefused, TrustedKeys, verify
from loragate.v1 import audit_pb2
from testkit.signing import EXTENSION, envelope_of, enveloped, new_key, statement_of, write_public

WEIGHTS, OTHERS = b"weights of one adapter", b"weights of another"
BASE = "b" * 64
KEY, STRANGER = new_key(), new_key("p256")
USE: dict[str, Any] = {"strength": 0.7, "expected_base_digest": BASE, "loader": "comfyui"}

Change = Callable[[dict[str, Any]], object]


def allow(*uses: tuple[bytes, float], **fields: Any) -> audit_pb2.Verdict:
    """A verdict over adapters at strengths, fields of it otherwise."""
    made = audit_pb2.Verdict(
        decision_id="d1",
        verdict="VERDICT_KIND_ALLOW",
        would_be_verdict="VERDICT_KIND_ALLOW",
        mode="MODE_ENFORCE",
        binding=True,
        adapters=[
            audit_pb2.AuditedAdapter(
                sha256=hashlib.sha256(data).hexdigest(),
                size_bytes=len(data),
                denoiser_strength=strength,
                text_encoder_strength=strength,
            )
            for data, strength in uses or [(WEIGHTS, 0.7)]
        ],
        base_model="tiny",
        digests=audit_pb2.Digests(base_model=BASE, library="c" * 64, policy="d" * 64),
        engine_version="14",
        loaders=["diffusers", "comfyui"],
    )
    made.decided_at.FromDatetime(datetime.now(UTC))
    made.expires_at.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    made.MergeFrom(audit_pb2.Verdict(**fields))
    return made


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> TrustedKeys:
    return TrustedKeys(write_public(KEY, tmp_path_factory.mktemp("keys") / "key.pem"))


def signed(statement: dict[str, Any] | None = None) -> bytes:
    return envelope_of(statement_of(allow()) if statement is None else statement, mine=KEY)


def said(change: Callable[[dict[str, Any]], object]) -> Change:
    """A change of what loragate itself says in the statement."""
    return lambda statement: change(statement["predicate"][EXTENSION])


def test_it_answers_the_question_that_it_was_given_for(keys: TrustedKeys) -> None:
    envelope = signed()
    result = verify(envelope, WEIGHTS, keys, **USE)
    assert result.allowed
    assert (result.verdict, result.mode, result.decision_id) == (Verdict.ALLOW, Mode.ENFORCE, "d1")
    assert result.digests.base_model == BASE
    assert (result.signed, result.signed_by) == (envelope, keys.current()[0].fingerprint)


def test_a_question_about_some_concepts_is_none_on_which_a_load_may_rest(
    keys: TrustedKeys,
) -> None:
    result = verify(signed(), WEIGHTS, keys, concept_ids=["cat"], **USE)
    assert result.verdict is Verdict.ALLOW
    assert not result.allowed


@pytest.mark.parametrize(
    ("adapters", "use", "why"),
    [
        (OTHERS, {}, "asked about was " + hashlib.sha256(OTHERS).hexdigest()),
        ([WEIGHTS, OTHERS], {}, "about 1 adapters, the question was about 2"),
        (WEIGHTS, {"strength": 0.8}, "judged at 0.7 for the denoiser, asked about was 0.8"),
        (WEIGHTS, {"strength": None}, "asked about was 1"),
        (WEIGHTS, {"text_encoder_strength": 0.0}, "for the text encoders"),
        (WEIGHTS, {"expected_base_digest": "e" * 64}, "not the expected one"),
        (WEIGHTS, {"base_model": "sdxl"}, "asked about was 'sdxl'"),
        (WEIGHTS, {"loader": "a1111"}, "not for 'a1111'"),
        (WEIGHTS, {"dry_run": True}, "Asked for was a dry run"),
        (WEIGHTS, {"expected_sha256": "e" * 64}, "e" * 64),
    ],
)
def test_it_answers_no_other_question(
    keys: TrustedKeys, adapters: Any, use: dict[str, Any], why: str
) -> None:
    with pytest.raises(SignatureRefused, match=why) as caught:
        verify(signed(), adapters, keys, **{**USE, **use})
    assert caught.value.remedy.startswith("Load nothing on it")


def test_adapters_together_are_the_same_in_any_order_and_no_fewer(keys: TrustedKeys) -> None:
    both = signed(statement_of(allow((WEIGHTS, 0.7), (OTHERS, 0.4))))
    references = [AdapterReference(data=OTHERS, strength=0.4), AdapterReference(data=WEIGHTS)]
    assert verify(both, references, keys, strength=0.7).allowed
    swapped = [AdapterReference(data=OTHERS, strength=0.7), AdapterReference(data=WEIGHTS)]
    for wrong in (swapped, [WEIGHTS], [WEIGHTS, WEIGHTS]):
        with pytest.raises(SignatureRefused):
            verify(both, wrong, keys, strength=0.4)


def test_what_is_no_allow_is_told_and_lets_nothing_in(keys: TrustedKeys) -> None:
    for kind in ("BLOCK", "REVIEW", "INCONCLUSIVE"):
        name = f"VERDICT_KIND_{kind}"
        statement = statement_of(allow(verdict=name, would_be_verdict=name))
        result = verify(signed(statement), WEIGHTS, keys, **USE)
        assert result.verdict == kind
        assert not result.allowed


def test_a_pilot_is_told_as_one(keys: TrustedKeys) -> None:
    statement = statement_of(allow(mode="MODE_PILOT", would_be_verdict="VERDICT_KIND_BLOCK"))
    assert verify(signed(statement), WEIGHTS, keys, **USE).only_by_pilot


def test_it_runs_out(keys: TrustedKeys) -> None:
    statement = statement_of(allow())
    body = statement["predicate"][EXTENSION]
    body["expiresAt"] = (datetime.now(UTC) - timedelta(seconds=40)).isoformat()
    body["decidedAt"] = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    with pytest.raises(SignatureRefused, match="It has run out"):
        verify(signed(statement), WEIGHTS, keys, **USE)
    assert verify(signed(statement), WEIGHTS, keys, clock_skew=60, **USE).allowed


def test_only_a_trusted_key_makes_it_count(keys: TrustedKeys) -> None:
    statement = statement_of(allow())
    with pytest.raises(SignatureRefused, match="No key that is trusted here") as caught:
        verify(envelope_of(statement, stranger=STRANGER), WEIGHTS, keys, **USE)
    assert "stranger" in str(caught.value)
    assert verify(envelope_of(statement, stranger=STRANGER, mine=KEY), WEIGHTS, keys, **USE).allowed
    # The name of a key is signed by nobody.
    fingerprint = keys.current()[0].fingerprint
    with pytest.raises(SignatureRefused):
        verify(enveloped(json.dumps(statement).encode(), {fingerprint: STRANGER}), WEIGHTS, keys)


def test_a_signature_is_for_the_bytes_that_it_was_made_of(keys: TrustedKeys) -> None:
    one = json.loads(signed())
    other = json.loads(signed(statement_of(allow((OTHERS, 0.7)))))
    one["signatures"] = other["signatures"]
    with pytest.raises(SignatureRefused, match="No key"):
        verify(json.dumps(one).encode(), WEIGHTS, keys, **USE)


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_what_is_signed_can_be_turned(keys: TrustedKeys, place: int, bit: int) -> None:
    envelope = json.loads(signed())
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[place % len(payload)] ^= 1 << bit
    envelope["payload"] = base64.b64encode(payload).decode()
    with pytest.raises(SignatureRefused, match="No key"):
        verify(json.dumps(envelope).encode(), WEIGHTS, keys, **USE)


NO_STATEMENTS: dict[str, Change] = {
    "of another type": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "of another predicate": lambda s: s.update(predicateType="https://slsa.dev/provenance/v1"),
    "no predicate": lambda s: s.pop("predicate"),
    "nothing of loragate": lambda s: s["predicate"].pop(EXTENSION),
    "another subject": lambda s: s["subject"][0]["digest"].update(sha256="e" * 64),
    "no subject": lambda s: s.update(subject=[]),
    "a subject more": lambda s: s["subject"].append(s["subject"][0]),
    "a subject without digest": lambda s: s["subject"][0].update(digest={"sha1": "e" * 40}),
    "failed, with an ALLOW": lambda s: s["predicate"].update(verificationResult="FAILED"),
    "no result": lambda s: s["predicate"].pop("verificationResult"),
    "passed, with a BLOCK": said(lambda v: v.update(verdict="BLOCK", wouldBeVerdict="BLOCK")),
    "passed, as a pilot": said(lambda v: v.update(mode="PILOT")),
    "passed, as a dry run": said(lambda v: v.update(dryRun=True, binding=False)),
    "passed, not binding": said(lambda v: v.update(binding=False)),
    "passed, on some concepts": said(lambda v: v.update(restrictedTo=["cat"])),
    "passed, decided otherwise": said(lambda v: v.update(wouldBeVerdict="BLOCK")),
    "a verdict of a newer version": said(lambda v: v.update(verdict="MAYBE")),
    "a condition of a newer version": said(lambda v: v.update(onlyOnMondays=True)),
    "a condition on an adapter": said(lambda v: v["adapters"][0].update(maximum=0.5)),
    "a digest of a newer version": said(lambda v: v["digests"].update(vae="e" * 64)),
    "no strength": said(lambda v: v["adapters"][0].pop("denoiserStrength")),
    "a strength in words": said(lambda v: v["adapters"][0].update(denoiserStrength="0.7")),
    "a strength that is a choice": said(lambda v: v["adapters"][0].update(denoiserStrength=True)),
    "no adapters": said(lambda v: v.update(adapters=[])),
    "an adapter that is none": said(lambda v: v.update(adapters=["a"])),
    "a size beyond all files": said(lambda v: v["adapters"][0].update(sizeBytes=2**65)),
    "no base digest": said(lambda v: v["digests"].update(baseModel="")),
    "a base digest in capitals": said(lambda v: v["digests"].update(baseModel="B" * 64)),
    "loaders that are no list": said(lambda v: v.update(loaders="comfyui")),
    "a loader that is no text": said(lambda v: v.update(loaders=[1])),
    "no time": said(lambda v: v.pop("expiresAt")),
    "a time without a zone": said(lambda v: v.update(expiresAt="2999-01-01T00:00:00")),
    "a time that is none": said(lambda v: v.update(expiresAt="tomorrow")),
    "binding in words": said(lambda v: v.update(binding="yes")),
}


@pytest.mark.parametrize("name", NO_STATEMENTS)
def test_a_signed_statement_that_is_not_understood_is_refused(keys: TrustedKeys, name: str) -> None:
    statement = copy.deepcopy(statement_of(allow()))
    NO_STATEMENTS[name](statement)
    with pytest.raises(SignatureRefused, match="no verdict that this client understands"):
        verify(signed(statement), WEIGHTS, keys, **USE)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"{",
        b'{"_type": 1, "_type": 2}',
        b'{"a": NaN}',
        b"[" * 100_000,
    ],
)
def test_a_signed_payload_that_is_no_statement_is_refused(
    keys: TrustedKeys, payload: bytes
) -> None:
    with pytest.raises(SignatureRefused):
        verify(enveloped(payload, {"mine": KEY}), WEIGHTS, keys)


def _envelope(**fields: Any) -> bytes:
    return json.dumps({**json.loads(signed()), **fields}).encode()


@pytest.mark.parametrize(
    "envelope",
    [
        b"",
        b"no JSON",
        b"[]",
        b" " * (1024 * 1024 + 1),
        enveloped(json.dumps(statement_of(allow())).encode(), {"mine": KEY}, "text/plain"),
        _envelope(payloadType="text/plain"),
        _envelope(payload="#"),
        _envelope(payload=""),
        _envelope(payload=None),
        _envelope(payload="é"),
        _envelope(signatures=[]),
        _envelope(signatures={}),
        _envelope(signatures=["a"]),
        _envelope(signatures=[{"sig": "####"}]),
        _envelope(signatures=[{"keyid": 1, "sig": "AAAA"}]),
        _envelope(signatures=[{"keyid": "mine"}]),
        _envelope(signatures=[{"sig": "AAAA"}] * 33),
        signed()[:-1] + b', "payload": "AAAA"}',
    ],
)
def test_what_is_no_envelope_is_refused(keys: TrustedKeys, envelope: bytes) -> None:
    with pytest.raises(SignatureRefused):
        verify(envelope, WEIGHTS, keys, **USE)


def test_weights_that_were_judged_with_a_configuration_are_not_those_alone(
    keys: TrustedKeys,
) -> None:
    statement = statement_of(allow())
    statement["predicate"][EXTENSION]["adapters"][0]["configSha256"] = "f" * 64
    with pytest.raises(SignatureRefused, match="with an adapter_config"):
        verify(signed(statement), WEIGHTS, keys, **USE)


def test_a_place_cannot_be_held_against_anything(keys: TrustedKeys) -> None:
    with pytest.raises(ValueError, match="read the file"):
        verify(signed(), "style.safetensors", keys)


def test_a_thousand_checks_take_no_time_to_speak_of(keys: TrustedKeys, tmp_path: Path) -> None:
    envelope, began = signed(), time.process_time()
    for _ in range(1000):
        assert verify(envelope, WEIGHTS, keys, **USE).allowed
    assert time.process_time() - began < 10
