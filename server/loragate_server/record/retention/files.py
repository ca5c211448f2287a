"""What the record says about stored files: which are blocked, and which are held."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, and_, exists, select

from loragate_server.policy.decision import VerdictKind
from loragate_server.record.retention.holds import Hold
from loragate_server.record.tables import audited_adapters, audits

_other = audited_adapters.alias("other")


def is_blocked(connection: Connection, sha256: str) -> bool:
    """Whether the last binding decision about this file alone was BLOCK, and was enforced."""
    beside = exists().where(
        _other.c.decision_id == audits.c.decision_id,
        _other.c.position != audited_adapters.c.position,
    )
    query = (
        select(audits.c.verdict)
        .join(audited_adapters, audited_adapters.c.decision_id == audits.c.decision_id)
        .where(and_(audited_adapters.c.sha256 == sha256, audits.c.binding.is_(True), ~beside))
        .order_by(audits.c.decided_at.desc(), audits.c.decision_id.desc())
        .limit(1)
    )
    return connection.execute(query).scalar() == VerdictKind.BLOCK.value


def file_holds(connection: Connection, sha256: str, holds: Sequence[Hold]) -> list[Hold]:
    """The holds on a file: by its digest, or through a decision about it.

    A decision that cannot be read counts as held, by every hold.
    """
    found = [hold for hold in holds if hold.holds_file(sha256)]
    others = [hold for hold in holds if not hold.sha256]
    if not others:
        return found
    query = (
        select(audits.c.payload)
        .join(audited_adapters, audited_adapters.c.decision_id == audits.c.decision_id)
        .where(audited_adapters.c.sha256 == sha256)
    )
    for payload in connection.execute(query).scalars():
        found += [hold for hold in others if hold not in found and _holds(hold, payload)]
    return found


def _holds(hold: Hold, payload: str) -> bool:
    try:
        return hold.holds_decision(json.loads(payload))
    except (ValueError, KeyError, TypeError, RecursionError):
        return True
