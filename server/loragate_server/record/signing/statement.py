"""What is signed of a verdict: an in-toto statement with a verification summary of SLSA.

Readers that know nothing of loragate find out whether these files passed a verification, by whom
and under which policy. Whoever loads adapters needs more: at which strengths, on which base model
and for which loaders a verdict speaks, and how long. That is in the part named `EXTENSION`. Its
fields are a closed set: a change that a reader of today would get wrong needs another name.

docs/signed-verdicts.md describes every field. No measured number is among them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from loragate_server import __version__
from loragate_server.audit.evidence import CoverageEvidence
from loragate_server.policy.decision import Mode, VerdictKind
from loragate_server.record.codec import to_json
from loragate_server.record.verdict import Verdict

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/verification_summary/v1"
EXTENSION = "urn:loragate:verdict:v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

PASSED_LEVEL = "ADAPTER_ALLOWED"
"""What a verification that passed attests; names that begin with SLSA_ are SLSA's own."""


def payload(verdict: Verdict, verifier: str) -> bytes:
    """The statement about a verdict as JSON.

    Args:
        verdict: what is attested.
        verifier: URI of the service.
    """
    return to_json(statement(verdict, verifier)).encode("ascii")


def statement(verdict: Verdict, verifier: str) -> dict[str, Any]:
    """The statement about a verdict as JSON values; see `payload`."""
    decision, evidence = verdict.decision, verdict.decision.evidence
    passed = (
        decision.verdict is VerdictKind.ALLOW and decision.mode is Mode.ENFORCE and verdict.binding
    )
    return {
        "_type": STATEMENT_TYPE,
        "subject": [_subject(number, one) for number, one in enumerate(evidence.adapters)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "verifier": {"id": verifier, "version": {"loragate-server": __version__}},
            "timeVerified": _time(verdict.decided_at),
            "resourceUri": f"urn:loragate:decision:{verdict.decision_id}",
            "policy": {
                "uri": f"urn:loragate:policy:{decision.policy_digest}",
                "digest": {"sha256": decision.policy_digest},
            },
            "verificationResult": "PASSED" if passed else "FAILED",
            "verifiedLevels": [PASSED_LEVEL] if passed else [],
            EXTENSION: _extension(verdict),
        },
    }


def _extension(verdict: Verdict) -> dict[str, Any]:
    decision, evidence = verdict.decision, verdict.decision.evidence
    return {
        "decisionId": verdict.decision_id,
        "verdict": decision.verdict.value,
        "wouldBeVerdict": decision.would_be_verdict.value,
        "mode": decision.mode.value,
        "binding": verdict.binding,
        "dryRun": verdict.dry_run,
        "restrictedTo": list(evidence.restricted_to),
        "adapters": [_adapter(one) for one in evidence.adapters],
        "loaders": list(evidence.loaders),
        "baseModel": evidence.base_model,
        "digests": {
            "baseModel": evidence.base_digest,
            "library": evidence.library_digest,
            "policy": decision.policy_digest,
            "calibration": evidence.calibration_digest,
        },
        "engineVersion": evidence.engine_version,
        "decidedAt": _time(verdict.decided_at),
        "expiresAt": _time(verdict.expires_at),
    }


def _subject(number: int, adapter: CoverageEvidence) -> dict[str, Any]:
    return {"name": f"adapter-{number}", "digest": {"sha256": adapter.sha256}}


def _adapter(adapter: CoverageEvidence) -> dict[str, Any]:
    return {
        "sha256": adapter.sha256,
        "kind": adapter.kind.upper(),
        "configSha256": adapter.config_sha256,
        "sizeBytes": adapter.size_bytes,
        "denoiserStrength": float(adapter.denoiser_strength),
        "textEncoderStrength": float(adapter.text_encoder_strength),
    }


def _time(moment: datetime) -> str:
    """As RFC 3339 has it, to the microsecond, in UTC."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
