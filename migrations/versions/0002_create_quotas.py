"""Create the table of quotas: how much of its quota each owner may have in use.

It begins empty: the first create of an owner counts what that owner has.

Revision: 0002
Follows: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "quotas",
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column(
            "reserved",
            sa.Integer,
            nullable=False,
            comment="at least the number of active operations",
        ),
        sa.Column("asked", sa.Integer, nullable=False, comment="by the last creates"),
        sa.Column("granted", sa.Integer, nullable=False, comment="of what was asked last"),
        sa.PrimaryKeyConstraint("owner", name="quotas_pkey"),
        sa.CheckConstraint(
            "reserved >= 0 AND asked >= 0 AND granted >= 0", name=op.f("quotas_counts_check")
        ),
        postgresql_with={"fillfactor": 50},
    )


def downgrade() -> None:
    """Remove the table."""
    op.drop_table("quotas")
