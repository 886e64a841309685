"""Let API keys know when they were last used, and which call created them.

Revision: 0003
Follows: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    """Add what a release before this one leaves empty."""
    for column in (
        sa.Column("last_used_time", INSTANT),
        sa.Column("creator", sa.Text, comment="the subject that created it over the API"),
        sa.Column("request_id", sa.Text),
        sa.Column("fingerprint", sa.Text),
    ):
        op.add_column("api_keys", column)
    op.create_index(
        "api_keys_creator_request_id_idx", "api_keys", ["creator", "request_id"], unique=True
    )
    op.create_index("api_keys_create_time_key_id_idx", "api_keys", ["create_time", "key_id"])


def downgrade() -> None:
    """Remove it."""
    op.drop_index("api_keys_create_time_key_id_idx", "api_keys")
    op.drop_index("api_keys_creator_request_id_idx", "api_keys")
    for name in ("fingerprint", "request_id", "creator", "last_used_time"):
        op.drop_column("api_keys", name)
