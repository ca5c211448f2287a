"""Events that wait to be told to others.

The way down drops nothing: an older version tells nobody anything, and what was still to be told
has to be there after the next way up.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    there = sa.inspect(op.get_bind())
    if not there.has_table("events"):
        _make_events()
    if not there.has_table("event_deliveries"):
        _make_deliveries()


def downgrade() -> None:
    pass


def _make_events() -> None:
    op.create_table(
        "events",
        sa.Column("event_id", sa.String(32), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("topic", sa.String(64), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_events"),
    )
    op.create_index("ix_events_topic", "events", ["topic"], unique=True)


def _make_deliveries() -> None:
    op.create_table(
        "event_deliveries",
        sa.Column("event_id", sa.String(32), nullable=False),
        sa.Column("receiver", sa.String(64), nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("dead_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["event_id"],
            ["events.event_id"],
            name="fk_event_deliveries_event_id_events",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("event_id", "receiver", name="pk_event_deliveries"),
    )
    op.create_index(
        "ix_event_deliveries_receiver_dead_at_made_at_event_id",
        "event_deliveries",
        ["receiver", "dead_at", "made_at", "event_id"],
    )
