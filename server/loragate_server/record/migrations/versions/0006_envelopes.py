"""The signed form of each decision; those recorded before have none."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audits", sa.Column("envelope", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    op.drop_column("audits", "envelope")
