"""Which weights a file holds, in the database, on a connection that the caller has opened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects import postgresql, sqlite

from loragate_server.record.tables import file_weights
from loragate_server.record.verdict import Verdict

_AT_ONCE = 500


def weights_of(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """Digests of the files of a decision, each with that of its weights, where it is known."""
    for one in verdict.decision.evidence.adapters:
        if one.weights_sha256:
            yield one.sha256, one.weights_sha256


def insert_weights(connection: Connection, verdict: Verdict) -> None:
    """Adds the weights of files that are not known yet."""
    rows = [
        {"sha256": sha256, "weights_sha256": weights, "learned_at": verdict.decided_at}
        for sha256, weights in dict(weights_of(verdict)).items()
    ]
    if not rows:
        return
    # Another replica may add the same one at the same moment.
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(dialect.insert(file_weights).on_conflict_do_nothing(), rows)


def read_weights(connection: Connection, sha256s: Iterable[str]) -> dict[str, str]:
    """The weights of some files, by file; nothing for those that were never asked about."""
    columns = file_weights.c
    wanted = sorted(set(sha256s))
    found: dict[str, str] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        query = select(columns.sha256, columns.weights_sha256).where(
            columns.sha256.in_(wanted[start : start + _AT_ONCE])
        )
        found.update((sha256, weights) for sha256, weights in connection.execute(query))
    return found


def weights_since(connection: Connection, since: datetime) -> dict[str, str]:
    """The weights of files that were first asked about at a moment or later."""
    columns = file_weights.c
    query = select(columns.sha256, columns.weights_sha256).where(columns.learned_at >= since)
    return {row.sha256: row.weights_sha256 for row in connection.execute(query)}


def newest(connection: Connection) -> datetime | None:
    """When a file was first asked about last; None where none ever was."""
    found: datetime | None = connection.execute(
        select(func.max(file_weights.c.learned_at))
    ).scalar_one()
    return found
