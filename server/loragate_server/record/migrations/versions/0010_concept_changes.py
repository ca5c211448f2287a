"""Changes of the concept library that people make in the browser.

The way down drops nothing: what people did is on record, and an older version does not look at it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    there = sa.inspect(op.get_bind())
    if not there.has_table("concept_changes"):
        _make_changes()
    if not there.has_table("change_pictures"):
        _make_pictures()


def downgrade() -> None:
    pass


def _make_changes() -> None:
    op.create_table(
        "concept_changes",
        sa.Column("change_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("concept_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("change_id", "position", name="pk_concept_changes"),
    )
    op.create_index(
        "ix_concept_changes_concept_id_change_id", "concept_changes", ["concept_id", "change_id"]
    )


def _make_pictures() -> None:
    op.create_table(
        "change_pictures",
        sa.Column("change_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("picture", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("change_id", "position", name="pk_change_pictures"),
    )
