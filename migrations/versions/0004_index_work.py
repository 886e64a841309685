"""Index the work at hand: what is pending, what is leased, and what is past its time.

Each index holds only the rows it is for, and none a column that progress changes: reports of
progress are still updated in place.

Revision: 0004
Follows: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEXES = (
    (
        "operations_pending_idx",
        "operations",
        ["function", "owner", "create_time", "id"],
        "status = 'PENDING'",
    ),
    ("operations_leased_idx", "operations", ["id"], "status = 'PROCESSING' AND lease IS NOT NULL"),
    (
        "operations_processing_expire_time_idx",
        "operations",
        ["expire_time"],
        "status = 'PROCESSING'",
    ),
    ("events_purge_time_idx", "events", ["time"], "transition = 'purge' AND revision > 1"),
)


def upgrade() -> None:
    """Create the indexes."""
    for name, table, columns, condition in INDEXES:
        where = sa.text(condition)
        op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)


def downgrade() -> None:
    """Remove them."""
    for name, table, *_ in reversed(INDEXES):
        op.drop_index(name, table)
