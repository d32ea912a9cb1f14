"""Retrains that broke leave a row, so that the schedule can wait before it tries the same labels again."""

import sqlalchemy as sa
from alembic import op

from inspection.store.migrations.append_only import protect, release

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLE = "failed_retrains"


def upgrade() -> None:
    """Apply."""
    op.create_table(
        _TABLE,
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("last_label_id", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.String(length=100), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_failed_retrains_product", _TABLE, ["product"], unique=False)
    protect(_TABLE, [["id"]])


def downgrade() -> None:
    """Take back."""
    release(_TABLE)
    op.drop_table(_TABLE)
