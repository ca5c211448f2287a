"""Reads the statement in an envelope: a verdict as a message of the API, as far as it is signed.

So one and the same check holds for verdicts that a service answers and for those that come as
files. What is not exactly as docs/signed-verdicts.md describes it is refused: a field that this
version does not know might be a condition.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from loragate._signed.refusal import NotUnderstood
from loragate._signed.strict import strict_json
from loragate._wire import wire_name
from loragate.reference import AdapterKind, is_sha256
from loragate.results import Mode, Verdict
from loragate.v1 import audit_pb2

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/verification_summary/v1"
EXTENSION = "urn:loragate:verdict:v1"

_REMEDY = "Load nothing on it; if the service is newer than this client, upgrade the client."
_K = TypeVar("_K")


@dataclass(frozen=True)
class Statement:
    """What was signed.

    Attributes:
        verdict: the fields of the message that are signed; the others are unset.
        passed: whether it says that the verification was passed.
        configured: digests of the adapters that were judged with a configuration beside them.
    """

    verdict: audit_pb2.Verdict
    passed: bool
    configured: tuple[str, ...]


def read_statement(payload: bytes) -> Statement:
    """The verdict that a payload states.

    Raises:
        NotUnderstood: it states none, or contradicts itself.
    """
    try:
        return _statement(strict_json(payload))
    except (ValueError, OverflowError) as error:
        raise NotUnderstood(
            f"What is signed is no verdict that this client understands: {error}", _REMEDY
        ) from None


def _statement(fields: Mapping[str, Any]) -> Statement:
    if (fields.get("_type"), fields.get("predicateType")) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ValueError("It is no verification summary in an in-toto statement.")
    predicate = _take(dict(fields), "predicate", dict)
    said = dict(_take(dict(predicate), EXTENSION, dict))
    adapters = [_adapter(one) for one in _take(said, "adapters", list)]
    subjects = [_subject(one) for one in _take(dict(fields), "subject", list)]
    if not adapters or subjects != [adapter.sha256 for adapter, _ in adapters]:
        raise ValueError("Its subject is not the adapters that it judges.")
    message = audit_pb2.Verdict(
        decision_id=_take(said, "decisionId", str),
        verdict=wire_name(Verdict(_take(said, "verdict", str))),
        would_be_verdict=wire_name(Verdict(_take(said, "wouldBeVerdict", str))),
        mode=wire_name(Mode(_take(said, "mode", str))),
        binding=_take(said, "binding", bool),
        dry_run=_take(said, "dryRun", bool),
        restricted_to_concept_ids=_texts(said, "restrictedTo"),
        loaders=_texts(said, "loaders"),
        base_model=_take(said, "baseModel", str),
        digests=_digests(_take(said, "digests", dict)),
        engine_version=_take(said, "engineVersion", str),
        adapters=[adapter for adapter, _ in adapters],
    )
    message.decided_at.FromDatetime(_time(said, "decidedAt"))
    message.expires_at.FromDatetime(_time(said, "expiresAt"))
    _require_empty(said)
    passed = _take(dict(predicate), "verificationResult", str) == "PASSED"
    if passed != _passes(message):
        raise ValueError("Its result is not that of its verdict.")
    configured = tuple(one.sha256 for one, config in adapters if config)
    return Statement(message, passed, configured)


def _passes(message: audit_pb2.Verdict) -> bool:
    """Whether it is a binding ALLOW of a policy that enforces: nothing else is a pass."""
    return (
        message.verdict == message.would_be_verdict == audit_pb2.VERDICT_KIND_ALLOW
        and message.mode == audit_pb2.MODE_ENFORCE
        and message.binding
        and not message.dry_run
        and not message.restricted_to_concept_ids
    )


def _adapter(fields: Any) -> tuple[audit_pb2.AuditedAdapter, str]:
    """An adapter, and the digest of the configuration beside it."""
    if not isinstance(fields, dict):
        raise ValueError("An adapter is none.")
    said = dict(fields)
    adapter = audit_pb2.AuditedAdapter(
        sha256=_sha256(_take(said, "sha256", str)),
        kind=wire_name(AdapterKind(_take(said, "kind", str))),
        size_bytes=_take(said, "sizeBytes", int),
        denoiser_strength=_strength(said, "denoiserStrength"),
        text_encoder_strength=_strength(said, "textEncoderStrength"),
    )
    config = _take(said, "configSha256", str)
    _require_empty(said)
    return adapter, config


def _subject(fields: Any) -> str:
    digest = fields.get("digest") if isinstance(fields, dict) else None
    if not isinstance(digest, dict):
        raise ValueError("A subject has no digest.")
    return _sha256(_take(dict(digest), "sha256", str))


def _digests(fields: Mapping[str, Any]) -> audit_pb2.Digests:
    said = dict(fields)
    digests = audit_pb2.Digests(
        base_model=_sha256(_take(said, "baseModel", str)),
        library=_sha256(_take(said, "library", str)),
        policy=_sha256(_take(said, "policy", str)),
    )
    _take(said, "calibration", str)  # which numbers a judgement rests on changes nothing for a load
    _require_empty(said)
    return digests


def _take(fields: dict[str, Any], name: str, kind: type[_K]) -> _K:
    value = fields.pop(name, None)
    # True is an int for Python, and a number of bytes for nobody.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} is missing, or no {kind.__name__}.")
    return value


def _texts(fields: dict[str, Any], name: str) -> list[str]:
    texts = _take(fields, name, list)
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{name} holds something that is no text.")
    return texts


def _strength(fields: dict[str, Any], name: str) -> float:
    value = fields.pop(name, None)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is missing, or no finite number.")
    return float(value)


def _sha256(text: str) -> str:
    if not is_sha256(text) or text != text.lower():
        raise ValueError(f"{text[:80]!r} is no sha256 in small letters.")
    return text


def _time(fields: dict[str, Any], name: str) -> datetime:
    moment = datetime.fromisoformat(_take(fields, name, str))
    if moment.utcoffset() != timedelta():
        raise ValueError(f"{name} is no time in UTC.")
    return moment.astimezone(UTC)


def _require_empty(fields: Mapping[str, Any]) -> None:
    if fields:
        raise ValueError(f"It says more than this client understands: {', '.join(sorted(fields))}.")
