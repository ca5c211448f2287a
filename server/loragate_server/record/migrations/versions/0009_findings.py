"""The concepts that decisions were made for, and whose act a review is, in columns to search by.

What is recorded already is read out of its payload, so that the search finds it as well. A payload
that cannot be read is left out: nothing can show it either.
"""

import json
import math
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from loragate_server.record.search import storable

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 500


def upgrade() -> None:
    connection = op.get_bind()
    # The constraint would keep replicas of the older version from recording decisions for as long
    # as this reads: PostgreSQL gets it when everything is read. SQLite has no replicas, nor such a
    # way.
    later = connection.dialect.name == "postgresql"
    table = op.create_table(
        "findings",
        sa.Column("decision_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("concept_id", sa.Text(), nullable=False),
        sa.Column("concept_name", sa.Text(), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("degree", sa.Float(53), nullable=True),
        sa.PrimaryKeyConstraint("decision_id", "position", name="pk_findings"),
        *(() if later else (_of_decision(),)),
    )
    _fill_findings(connection, table)
    for column in ("concept_id", "severity"):
        op.create_index(f"ix_findings_{column}_decision_id", "findings", [column, "decision_id"])
    if later:
        _constrain()
    op.add_column("reviews", sa.Column("reviewer", sa.Text(), nullable=True))
    op.create_index("ix_reviews_reviewer_subject_key", "reviews", ["reviewer", "subject_key"])
    op.create_index("ix_reviews_reviewed_at", "reviews", ["reviewed_at"])
    _fill_reviewers(connection)


def downgrade() -> None:
    op.drop_index("ix_reviews_reviewed_at", "reviews")
    op.drop_index("ix_reviews_reviewer_subject_key", "reviews")
    op.drop_column("reviews", "reviewer")
    op.drop_table("findings")


def _of_decision() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["decision_id"],
        ["audits.decision_id"],
        name="fk_findings_decision_id_audits",
        ondelete="CASCADE",
    )


def _constrain() -> None:
    """Decisions may have been pruned meanwhile, which nothing took out of the new table."""
    op.execute("LOCK TABLE audits IN SHARE ROW EXCLUSIVE MODE")
    op.execute(
        "DELETE FROM findings WHERE NOT EXISTS"
        " (SELECT 1 FROM audits WHERE audits.decision_id = findings.decision_id)"
    )
    op.create_foreign_key(
        "fk_findings_decision_id_audits",
        "findings",
        "audits",
        ["decision_id"],
        ["decision_id"],
        ondelete="CASCADE",
        postgresql_not_valid=True,
    )


def _fill_findings(connection: sa.Connection, table: sa.Table) -> None:
    key, payload = _texts("decision_id", "payload")
    audits = sa.table("audits", key, payload)
    for rows in _in_parts(connection, sa.select(key, payload).select_from(audits), key):
        found = [row for one in rows for row in _findings(*one)]
        if found:
            connection.execute(table.insert(), found)


def _fill_reviewers(connection: sa.Connection) -> None:
    key, payload, reviewer = _texts("review_id", "payload", "reviewer")
    reviews = sa.table("reviews", key, payload, reviewer)
    for rows in _in_parts(connection, sa.select(key, payload).select_from(reviews), key):
        for review_id, text in rows:
            name = _object(text).get("event", {}).get("reviewer")
            if isinstance(name, str):
                change = sa.update(reviews).where(key == review_id)
                connection.execute(change.values(reviewer=storable(name)))


def _texts(*names: str) -> list[sa.ColumnClause[str]]:
    return [sa.column(name, sa.Text()) for name in names]


def _in_parts(
    connection: sa.Connection, query: Any, key: sa.ColumnClause[Any]
) -> Iterator[list[tuple[str, str]]]:
    """All rows by rising key, a few at a time: no cursor stays open beside what is written."""
    last = ""
    while True:
        part = query.where(key > last).order_by(key).limit(_ROWS_AT_ONCE)
        rows = [(str(row[0]), str(row[1])) for row in connection.execute(part)]
        if not rows:
            return
        yield rows
        last = rows[-1][0]


def _findings(decision_id: str, text: str) -> Iterator[dict[str, Any]]:
    decision = _object(text).get("decision", {})
    acted = [one for one in decision.get("findings", []) if one.get("verdict") != "ALLOW"]
    for position, one in enumerate(acted):
        concept = one.get("evidence", {})
        degree = concept.get("degree")
        measured = isinstance(degree, int | float) and math.isfinite(degree)
        yield {
            "decision_id": decision_id,
            "position": position,
            "concept_id": storable(str(concept.get("concept_id", ""))),
            "concept_name": storable(str(concept.get("concept_name", ""))),
            "severity": storable(str(concept.get("severity", "")))[:16],
            "degree": float(degree) if measured else None,
        }


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
