"""Verdicts say why their part was shown: made on the line, or a known part shown as a challenge."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply. Verdicts that are here say it in their body, those of older agents by saying nothing."""
    op.add_column("verdicts", sa.Column("purpose", sa.String(length=16), server_default="production", nullable=False))
    verdicts = sa.table("verdicts", sa.column("purpose", sa.String()), sa.column("body", sa.JSON()))
    shown = verdicts.c.body["purpose"].as_string() == "challenge"
    op.execute(sa.update(verdicts).where(shown).values(purpose="challenge"))


def downgrade() -> None:
    """Take back."""
    op.drop_column("verdicts", "purpose")
