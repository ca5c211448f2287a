"""Reviews, and what of a decision can be reviewed.

Decisions recorded before have no subject: their adapters are reviewed when they are asked about
again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audits", sa.Column("subject_key", sa.String(64), nullable=True))
    op.create_index("ix_audits_subject_key_decision_id", "audits", ["subject_key", "decision_id"])
    op.create_index(
        "ix_audits_would_be_verdict_decided_at_decision_id",
        "audits",
        ["would_be_verdict", "decided_at", "decision_id"],
    )
    op.create_table(
        "reviews",
        sa.Column("review_id", sa.String(32), nullable=False),
        sa.Column("subject_key", sa.String(64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("reviewed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("review_id", name="pk_reviews"),
    )
    op.create_index(
        "ix_reviews_subject_key_position", "reviews", ["subject_key", "position"], unique=True
    )


def downgrade() -> None:
    op.drop_table("reviews")
    op.drop_index("ix_audits_would_be_verdict_decided_at_decision_id", "audits")
    op.drop_index("ix_audits_subject_key_decision_id", "audits")
    op.drop_column("audits", "subject_key")
