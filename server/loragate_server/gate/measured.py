"""What was measured elsewhere, and whether it may be decided over here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from loragate_server.adapter.reference import StoredFile
from loragate_server.audit.evidence import ENGINE_VERSION, Evidence
from loragate_server.errors import ErrorReason, NoDecisionError
from loragate_server.gate.bases import ServedBase


def measured_otherwise(how: str) -> NoDecisionError:
    """NOT_READY: what was measured elsewhere is not what would be measured here."""
    return NoDecisionError(
        ErrorReason.NOT_READY,
        f"An auditor measures otherwise than the scan began with: {how}.",
        remedy="Give the command again: it scans with what there is now.",
    )


@dataclass(frozen=True)
class Measured:
    """What was measured of a question elsewhere, complete with what is known of its files.

    Attributes:
        times_s: stage to seconds, from "intake" on.
    """

    evidence: Evidence
    times_s: Mapping[str, float]


def require_of(evidence: Evidence, file: StoredFile, served: ServedBase) -> None:
    """Sees that evidence from elsewhere is of one file, and what would be measured of it here.

    Raises:
        NoDecisionError: NOT_READY, it is not.
    """
    wanted = (
        [(file.sha256, file.config_sha256)],
        (served.base.digest, served.library_digest),
        ENGINE_VERSION,
    )
    found = (
        [(one.sha256, one.config_sha256) for one in evidence.adapters],
        (evidence.base_digest, evidence.library_digest),
        evidence.engine_version,
    )
    if found != wanted:
        raise measured_otherwise(
            "the evidence is of another file, base model, library or engine than is served"
        )
