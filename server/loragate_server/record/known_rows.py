"""Known uses in the database, on a connection that the caller has opened."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection, exists, func, insert, select

from loragate_server.policy.known import KnownUse, judged_uses
from loragate_server.policy.review import ReviewedAdapter
from loragate_server.record.tables import known_uses
from loragate_server.record.verdict import Verdict


def known_of(verdict: Verdict) -> tuple[KnownUse, ...]:
    """What a verdict says about uses; nothing where it does not bind."""
    if not verdict.binding:
        return ()
    base_digest = verdict.decision.evidence.base_digest
    return tuple(
        KnownUse(verdict.decision_id, verdict.decided_at, base_digest, members, blocked)
        for members, blocked in judged_uses(verdict.decision)
    )


def insert_known(connection: Connection, verdict: Verdict) -> None:
    """Adds what a verdict blocks, and what it allows of files that were blocked before."""
    for position, use in enumerate(known_of(verdict)):
        files = files_key(use.sha256s)
        if not use.blocked:
            same = (known_uses.c.files == files) & (known_uses.c.base_digest == use.base_digest)
            if not connection.execute(select(exists().where(same))).scalar_one():
                continue
        connection.execute(
            insert(known_uses).values(
                decision_id=use.decision_id,
                position=position,
                decided_at=use.decided_at,
                base_digest=use.base_digest,
                files=files,
                blocked=use.blocked,
                members=_text(use.members),
            )
        )


def count_known(connection: Connection) -> int:
    """How many rows there are; none is ever deleted."""
    return int(connection.execute(select(func.count()).select_from(known_uses)).scalar_one())


def known_since(connection: Connection, since: datetime | None) -> list[KnownUse]:
    """The rows of decisions made at a moment or later, oldest first; all for None."""
    columns = known_uses.c
    query = select(
        columns.decision_id,
        columns.decided_at,
        columns.base_digest,
        columns.members,
        columns.blocked,
    ).order_by(columns.decided_at, columns.decision_id)
    if since is not None:
        query = query.where(columns.decided_at >= since)
    return [
        KnownUse(decision_id, decided_at, base_digest, _members(members), blocked)
        for decision_id, decided_at, base_digest, members, blocked in connection.execute(query)
    ]


def files_key(sha256s: Iterable[str]) -> str:
    """Equal for the same files, in whatever order and at whatever strengths."""
    return hashlib.sha256("\n".join(sorted(sha256s)).encode()).hexdigest()


def _text(members: Iterable[ReviewedAdapter]) -> str:
    return json.dumps(
        [
            [one.sha256, one.config_sha256, one.denoiser_strength, one.text_encoder_strength]
            for one in members
        ]
    )


def _members(text: str) -> tuple[ReviewedAdapter, ...]:
    return tuple(sorted(ReviewedAdapter(*one) for one in json.loads(text)))
