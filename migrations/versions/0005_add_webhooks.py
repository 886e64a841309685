"""Add what sending webhooks needs: where each delivery stands, its attempts, signing secrets.

The previous release goes on writing deliveries: what it leaves out has a default, by which the
delivery is due at once.

Revision: 0005
Follows: 0004
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# On SQLite instants and durations are microseconds.
INSTANT = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
SPAN = sa.Interval().with_variant(sa.BigInteger(), "sqlite")
LONG_AGO = "1970-01-01 00:00:00+00"
STATUSES = "status IN ('DELIVERED', 'EXHAUSTED', 'PENDING', 'STOPPED')"
SETTLED = "(status = 'PENDING') = (settle_time IS NULL)"


def upgrade() -> None:
    """Let deliveries stand somewhere, and create the other two tables."""
    if op.get_bind().dialect.name == "sqlite":
        _rebuild(_first_columns() + _new_columns(), checked=True)
    else:
        for column in _new_columns():
            op.add_column("deliveries", column)
        op.create_check_constraint(op.f("deliveries_status_check"), "deliveries", STATUSES)
        op.create_check_constraint(op.f("deliveries_settled_check"), "deliveries", SETTLED)
    _index("deliveries_due_idx", ["next_attempt_time"], "status = 'PENDING'")
    _index("deliveries_left_idx", ["settle_time"], "payload IS NOT NULL")
    op.create_index(
        "deliveries_owner_create_time_id_idx", "deliveries", ["owner", "create_time", "id"]
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("delivery_id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("start_time", INSTANT, nullable=False),
        sa.Column("duration", SPAN, nullable=False),
        sa.Column("status_code", sa.Integer),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("delivery_id", "number", name="delivery_attempts_pkey"),
        sa.CheckConstraint("number >= 1", name=op.f("delivery_attempts_number_check")),
    )
    op.create_table(
        "signing_secrets",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False, comment="of the master key"),
        sa.Column("sealed", sa.LargeBinary, nullable=False, comment="encrypted by that key"),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("expire_time", INSTANT, comment="when it stops signing; absent while current"),
        sa.Column("request_id", sa.Text, comment="of the rotation that made it"),
        sa.PrimaryKeyConstraint("id", name="signing_secrets_pkey"),
        sa.CheckConstraint("trim(owner) <> ''", name=op.f("signing_secrets_owner_check")),
    )
    current = sa.text("expire_time IS NULL")
    op.create_index(
        "signing_secrets_current_idx",
        "signing_secrets",
        ["owner"],
        unique=True,
        postgresql_where=current,
        sqlite_where=current,
    )
    op.create_index(
        "signing_secrets_owner_create_time_idx", "signing_secrets", ["owner", "create_time"]
    )


def downgrade() -> None:
    """Remove it again. What is settled goes too: it must not be taken for unsent later."""
    op.drop_table("signing_secrets")
    op.drop_table("delivery_attempts")
    op.execute("DELETE FROM deliveries WHERE status <> 'PENDING'")
    for index in ("due", "left", "owner_create_time_id"):
        op.drop_index(f"deliveries_{index}_idx", "deliveries")
    if op.get_bind().dialect.name == "sqlite":
        _rebuild(_first_columns(), checked=False)
        return
    op.drop_constraint(op.f("deliveries_status_check"), "deliveries")
    op.drop_constraint(op.f("deliveries_settled_check"), "deliveries")
    for column in _new_columns():
        op.drop_column("deliveries", column.name)


def _first_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("id", sa.Text, nullable=False, comment="the webhook-id, stable over attempts"),
        sa.Column("operation_id", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("callback_url", sa.Text, nullable=False),
        sa.Column("create_time", INSTANT, nullable=False),
    ]


def _new_columns() -> list[sa.Column[Any]]:
    sqlite = op.get_bind().dialect.name == "sqlite"
    due = sa.text("0") if sqlite else sa.text(f"'{LONG_AGO}'")
    return [
        sa.Column("host", sa.Text, nullable=False, server_default="-", comment="of the URL"),
        sa.Column("status", sa.Text, nullable=False, server_default="PENDING"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column(
            "tries",
            sa.Integer,
            nullable=False,
            server_default="0",
            comment="failed attempts of the schedule as it runs now",
        ),
        sa.Column(
            "next_attempt_time",
            INSTANT,
            nullable=False,
            server_default=due,
            comment="while it is being sent: when its lease runs out",
        ),
        sa.Column("lease", sa.Text, comment="of the dispatcher that holds it"),
        sa.Column("settle_time", INSTANT),
        sa.Column("request_id", sa.Text, comment="of the last redelivery"),
        sa.Column("payload", sa.Text, comment="JSON of the operation, once that is gone"),
    ]


def _rebuild(columns: list[sa.Column[Any]], *, checked: bool) -> None:
    """Give the table these columns: SQLite cannot add a constraint to a table."""
    op.drop_index("deliveries_operation_id_revision_idx", "deliveries")
    op.rename_table("deliveries", "deliveries_before")
    checks = [
        sa.CheckConstraint(STATUSES, name=op.f("deliveries_status_check")),
        sa.CheckConstraint(SETTLED, name=op.f("deliveries_settled_check")),
    ]
    op.create_table(
        "deliveries",
        *columns,
        sa.PrimaryKeyConstraint("id", name="deliveries_pkey"),
        *(checks if checked else []),
    )
    kept = ", ".join(column.name for column in _first_columns())
    op.execute(f"INSERT INTO deliveries ({kept}) SELECT {kept} FROM deliveries_before")  # noqa: S608 - constants
    op.drop_table("deliveries_before")
    op.create_index(
        "deliveries_operation_id_revision_idx",
        "deliveries",
        ["operation_id", "revision"],
        unique=True,
    )


def _index(name: str, columns: list[str], where: str) -> None:
    clause = sa.text(where)
    op.create_index(name, "deliveries", columns, postgresql_where=clause, sqlite_where=clause)
