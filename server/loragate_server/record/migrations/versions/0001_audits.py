"""Tables of the first version: audits and the adapters they were about."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audits",
        sa.Column("decision_id", sa.String(32), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("would_be_verdict", sa.String(16), nullable=False),
        sa.Column("mode", sa.String(16), nullable=False),
        sa.Column("remedy", sa.String(32), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("base_model", sa.Text(), nullable=False),
        sa.Column("base_digest", sa.Text(), nullable=False),
        sa.Column("library_digest", sa.Text(), nullable=False),
        sa.Column("policy_digest", sa.Text(), nullable=False),
        sa.Column("engine_version", sa.Text(), nullable=False),
        sa.Column("caller_service", sa.Text(), nullable=False),
        sa.Column("caller_tenant", sa.Text(), nullable=False),
        sa.Column("caller_request_id", sa.Text(), nullable=False),
        sa.Column("caller_identity", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("decision_id", name="pk_audits"),
    )
    op.create_index("ix_audits_decided_at_decision_id", "audits", ["decided_at", "decision_id"])
    op.create_index(
        "ix_audits_verdict_decided_at_decision_id",
        "audits",
        ["verdict", "decided_at", "decision_id"],
    )
    op.create_table(
        "audited_adapters",
        sa.Column("decision_id", sa.String(32), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("denoiser_strength", sa.Float(53), nullable=False),
        sa.Column("text_encoder_strength", sa.Float(53), nullable=False),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["audits.decision_id"],
            name="fk_audited_adapters_decision_id_audits",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("decision_id", "position", name="pk_audited_adapters"),
    )
    op.create_index(
        "ix_audited_adapters_sha256_decision_id", "audited_adapters", ["sha256", "decision_id"]
    )


def downgrade() -> None:
    op.drop_table("audited_adapters")
    op.drop_table("audits")
