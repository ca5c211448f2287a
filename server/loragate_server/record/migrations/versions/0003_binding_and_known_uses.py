"""Which decisions bind, and which uses of files are known to be forbidden.

Decisions recorded before are taken at their word: all but dry runs bind, and what they blocked, one
file or several together, is known. Their configurations were not in a column, so they stay empty.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from loragate_server.record.known_rows import files_key

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROWS_AT_ONCE = 1000


def upgrade() -> None:
    op.add_column(
        "audits", sa.Column("binding", sa.Boolean(), nullable=False, server_default=sa.true())
    )
    op.execute("UPDATE audits SET binding = NOT dry_run")
    table = op.create_table(
        "known_uses",
        sa.Column("decision_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("base_digest", sa.Text(), nullable=False),
        sa.Column("files", sa.String(64), nullable=False),
        sa.Column("blocked", sa.Boolean(), nullable=False),
        sa.Column("members", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["audits.decision_id"],
            name="fk_known_uses_decision_id_audits",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("decision_id", "position", name="pk_known_uses"),
    )
    op.create_index("ix_known_uses_decided_at", "known_uses", ["decided_at"])
    op.create_index("ix_known_uses_files", "known_uses", ["files"])
    found = list(_blocked(op.get_bind()))
    for start in range(0, len(found), _ROWS_AT_ONCE):
        op.bulk_insert(table, found[start : start + _ROWS_AT_ONCE])


def downgrade() -> None:
    op.drop_table("known_uses")
    op.drop_column("audits", "binding")


def _blocked(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    moment = sa.DateTime(timezone=True)
    audits = sa.table(
        "audits",
        sa.column("decision_id"),
        sa.column("decided_at", moment),
        sa.column("base_digest"),
        sa.column("would_be_verdict"),
        sa.column("dry_run", sa.Boolean()),
    )
    adapters = sa.table(
        "audited_adapters",
        *map(
            sa.column,
            ("decision_id", "position", "sha256", "denoiser_strength", "text_encoder_strength"),
        ),
    )
    query = (
        sa.select(
            audits.c.decision_id,
            audits.c.decided_at,
            audits.c.base_digest,
            adapters.c.sha256,
            adapters.c.denoiser_strength,
            adapters.c.text_encoder_strength,
        )
        .join_from(audits, adapters, adapters.c.decision_id == audits.c.decision_id)
        .where(audits.c.would_be_verdict == "BLOCK", audits.c.dry_run.is_(sa.false()))
        .order_by(audits.c.decision_id, adapters.c.position)
    )
    members: dict[tuple[Any, ...], list[list[Any]]] = defaultdict(list)
    for decision_id, decided_at, base_digest, sha256, *strengths in connection.execute(query):
        members[decision_id, decided_at, base_digest].append([sha256, "", *strengths])
    for (decision_id, decided_at, base_digest), used in members.items():
        yield {
            "decision_id": decision_id,
            "position": 0,
            "decided_at": decided_at,
            "base_digest": base_digest,
            "files": files_key(sha256 for sha256, *_ in used),
            "blocked": True,
            "members": json.dumps(sorted(used)),
        }
