"""The digest of the weights of audited files, whatever their metadata says.

Files audited before have none until they are asked about again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "file_weights",
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("learned_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_file_weights"),
    )
    for column in ("weights_sha256", "learned_at"):
        op.create_index(f"ix_file_weights_{column}", "file_weights", [column])


def downgrade() -> None:
    op.drop_table("file_weights")
