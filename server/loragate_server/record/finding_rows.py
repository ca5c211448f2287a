"""The concepts that the policy acted on, in the database, for those who search and count by them.

The rows hold nothing that the payload of the decision does not hold, and go with it.
"""

from __future__ import annotations

import math

from sqlalchemy import Connection, insert

from loragate_server.policy.decision import VerdictKind
from loragate_server.record.search import storable
from loragate_server.record.tables import findings
from loragate_server.record.verdict import Verdict

LONGEST_SEVERITY = 16


def insert_findings(connection: Connection, verdict: Verdict) -> None:
    """Adds the concepts of a verdict that are more than measured."""
    acted = [one for one in verdict.decision.findings if one.verdict is not VerdictKind.ALLOW]
    rows = [
        {
            "decision_id": verdict.decision_id,
            "position": position,
            "concept_id": storable(concept.concept_id),
            "concept_name": storable(concept.concept_name),
            "severity": storable(concept.severity)[:LONGEST_SEVERITY],
            "degree": concept.degree if math.isfinite(concept.degree) else None,
        }
        for position, concept in enumerate(one.evidence for one in acted)
    ]
    if rows:
        connection.execute(insert(findings), rows)
