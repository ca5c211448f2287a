"""Ways in which the signature of an ALLOW can be none of it, by a service or what stands before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from loragate.v1 import audit_pb2
from testkit.signing import EXTENSION, envelope_of, new_key, statement_of
from tests.client.lies import LIES, Lie

KEY, REVOKED, STRANGER = new_key(), new_key(), new_key("p256")
KEY_ID, REVOKED_ID = "2026-01", "2025-07"
HOUR_S = 3600


def sign(verdict: audit_pb2.Verdict) -> None:
    """What an honest service does."""
    verdict.dsse_envelope = envelope_of(statement_of(verdict), **{KEY_ID: KEY})


def _of_another(change: Lie) -> Lie:
    """The honest signature of another verdict, under the one that was asked for."""

    def lie(verdict: audit_pb2.Verdict) -> None:
        other = copy.deepcopy(verdict)
        change(other)
        sign(other)
        verdict.dsse_envelope = other.dsse_envelope

    return lie


def stated(change: Callable[[dict[str, Any]], object]) -> Lie:
    """A statement that no service makes, by the right key."""

    def lie(verdict: audit_pb2.Verdict) -> None:
        statement = statement_of(verdict)
        change(statement)
        verdict.dsse_envelope = envelope_of(statement, **{KEY_ID: KEY})

    return lie


def _by(name: str, key: Any) -> Lie:
    def lie(verdict: audit_pb2.Verdict) -> None:
        verdict.dsse_envelope = envelope_of(statement_of(verdict), **{name: key})

    return lie


def _signed_before(lie: Lie) -> Lie:
    """An honest verdict that was changed on its way."""

    def changed(verdict: audit_pb2.Verdict) -> None:
        sign(verdict)
        lie(verdict)

    return changed


def _set(name: str, value: Any) -> Lie:
    return lambda verdict: setattr(verdict, name, value)


def _adapter(name: str, value: Any) -> Lie:
    return lambda verdict: setattr(verdict.adapters[0], name, value)


def _earlier(verdict: audit_pb2.Verdict) -> None:
    verdict.decided_at.seconds -= 2 * HOUR_S
    verdict.expires_at.seconds -= 2 * HOUR_S


SIGNED_LIES: dict[str, Lie] = {
    "no signature": lambda verdict: verdict.ClearField("dsse_envelope"),
    "no envelope": _set("dsse_envelope", b"signed, honestly"),
    "the signature of a stranger": _by("stranger", STRANGER),
    "a stranger under a trusted name": _by(KEY_ID, STRANGER),
    "a revoked key": _by(REVOKED_ID, REVOKED),
    "a revoked key under a trusted name": _by(KEY_ID, REVOKED),
    "another adapter": _of_another(_adapter("sha256", "e" * 64)),
    "one adapter more": _of_another(
        lambda verdict: verdict.adapters.add().CopyFrom(verdict.adapters[0])
    ),
    "another strength": _of_another(_adapter("denoiser_strength", 0.01)),
    "another strength of the text encoders": _of_another(_adapter("text_encoder_strength", 0.01)),
    "another base model": _of_another(_set("base_model", "other")),
    "another base": _of_another(lambda verdict: _base(verdict, "e" * 64)),
    "other loaders": _of_another(lambda verdict: verdict.loaders.pop()),
    "one that has run out": _of_another(_earlier),
    "a later one": _of_another(lambda verdict: _later(verdict)),
    "another decision": _of_another(_set("decision_id", "another")),
    "a BLOCK": _of_another(LIES["a BLOCK"]),
    "a pilot": _of_another(_set("mode", audit_pb2.MODE_PILOT)),
    "a dry run": _of_another(_set("dry_run", True)),
    "not binding": _of_another(_set("binding", False)),
    "some concepts only": _of_another(lambda v: v.restricted_to_concept_ids.append("another")),
    "a condition that is not known": stated(
        lambda statement: statement["predicate"][EXTENSION].update(onlyOnMondays=True)
    ),
    "another subject": stated(
        lambda statement: statement["subject"][0]["digest"].update(sha256="e" * 64)
    ),
    "a predicate of another kind": stated(
        lambda statement: statement.update(predicateType="https://slsa.dev/provenance/v1")
    ),
    **{f"signed, then: {name}": _signed_before(lie) for name, lie in LIES.items()},
}
"""What makes of an ALLOW one that is not signed as it is."""


def _base(verdict: audit_pb2.Verdict, digest: str) -> None:
    verdict.digests.base_model = digest


def _later(verdict: audit_pb2.Verdict) -> None:
    verdict.expires_at.seconds += HOUR_S
