"""A station may have a challenger: a bundle that judges without answering."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply."""
    op.add_column("stations", sa.Column("challenger", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Take back."""
    op.drop_column("stations", "challenger")
