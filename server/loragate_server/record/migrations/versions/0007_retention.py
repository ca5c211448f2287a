"""What was pruned, and what is held back from it.

The way down drops nothing: an older version does not look at any of it and prunes nothing, and
after the next way up every hold has to be in force again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    there = sa.inspect(op.get_bind())
    if "evidence_pruned_at" not in {one["name"] for one in there.get_columns("audits")}:
        moment = sa.DateTime(timezone=True)
        op.add_column("audits", sa.Column("evidence_pruned_at", moment, nullable=True))
    if not there.has_table("holds"):
        _make_holds()
    if not there.has_table("pruned"):
        _make_pruned()


def downgrade() -> None:
    pass


def _make_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("about", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("release_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name", name="pk_holds"),
    )


def _make_pruned() -> None:
    op.create_table(
        "pruned",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("pruned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archive", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pruned"),
    )
