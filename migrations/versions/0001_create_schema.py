"""Create the schema of the first release.

The types are defined in this file, not imported from the service: the result of a migration must
not change with the code.

Revision: 0001
Follows: nothing
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic import op

if TYPE_CHECKING:
    from collections.abc import Sequence

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# On SQLite instants and durations are microseconds.
INSTANT = sa.DateTime(timezone=True).with_variant(sa.BigInteger(), "sqlite")
SPAN = sa.Interval().with_variant(sa.BigInteger(), "sqlite")


def upgrade() -> None:
    """Create every table with its indexes."""
    _create_operations()
    _create_events()
    _create_deliveries()
    _create_quotas()
    _create_serving_periods()
    _create_signing_secrets()
    _create_keys()


def downgrade() -> None:
    """Remove every table."""
    for table in (
        "service_keys",
        "api_keys",
        "signing_secrets",
        "delivery_attempts",
        "serving_periods",
        "quotas",
        "deliveries",
        "events",
        "operations",
    ):
        op.drop_table(table)


def _create_operations() -> None:
    op.create_table(
        "operations",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("function", sa.Text, nullable=False),
        sa.Column("version", sa.Text),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("progress", sa.Double),
        sa.Column("progress_message", sa.Text),
        sa.Column("progress_time", INSTANT),
        sa.Column("result_type", sa.Text),
        sa.Column("result_value", sa.LargeBinary),
        sa.Column("errors", sa.Text, comment="JSON list of {code, message, source, details}"),
        sa.Column("metadata", sa.Text, comment="JSON object, the caller's own"),
        sa.Column("original_request_id", sa.Text),
        sa.Column("callback_url", sa.Text),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("start_time", INSTANT),
        sa.Column("complete_time", INSTANT),
        sa.Column("cancel_time", INSTANT),
        sa.Column("expire_time", INSTANT, nullable=False),
        sa.Column("ttl", SPAN, nullable=False),
        sa.Column("retry_after", SPAN, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("failed_attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt_time", INSTANT, comment="not claimable before; absent once it is"),
        sa.Column("worker", sa.Text),
        sa.Column("lease", SPAN, comment="how long each renewal holds; absent when not leased"),
        sa.Column("lease_expire_time", INSTANT),
        sa.Column("request_id", sa.Text, comment="of the create"),
        sa.Column("fingerprint", sa.Text, nullable=False, comment="of the create's content"),
        sa.Column("progress_request_id", sa.Text, comment="of the last progress"),
        sa.Column("callback_events", sa.Text, comment="event types, separated by spaces"),
        sa.Column("trace_context", sa.Text, comment="traceparent of the create"),
        sa.Column("priority", sa.SmallInteger, nullable=False, server_default="5"),
        sa.Column("schedule_time", INSTANT),
        sa.Column("unique_key", sa.Text),
        sa.Column("initial_backoff", SPAN, nullable=False),
        sa.Column("backoff", SPAN, nullable=False, comment="the next pause between attempts"),
        sa.Column("backoff_multiplier", sa.Double, nullable=False),
        sa.Column("max_backoff", SPAN, nullable=False),
        sa.Column("queue_timeout", SPAN),
        sa.Column("run_timeout", SPAN),
        sa.Column("queue_expire_time", INSTANT, comment="end of queue_timeout, while pending"),
        sa.Column("run_expire_time", INSTANT, comment="end of run_timeout, while processing"),
        sa.Column("cancel_request_time", INSTANT),
        sa.Column("cancel_delivered_time", INSTANT),
        sa.Column("cancel_expire_time", INSTANT, comment="end of the grace, while processing"),
        sa.Column("cancel_reason", sa.Text),
        sa.Column("checkpoint_type", sa.Text),
        sa.Column("checkpoint_value", sa.LargeBinary),
        sa.PrimaryKeyConstraint("id", name="operations_pkey"),
        *(
            sa.CheckConstraint(rule, name=op.f(f"operations_{name}_check"))
            for name, rule in {
                "id": "length(id) = 27 AND substr(id, 1, 3) = 'op_'",
                "function": "trim(function) <> ''",
                "owner": "trim(owner) <> ''",
                "status": "status IN ('CANCELLED', 'COMPLETED', 'FAILED', 'PENDING', 'PROCESSING')",
                "progress": "progress >= 0.0 AND progress <= 1.0",
                "revision": "revision >= 1",
                "attempt": "attempt >= 0 AND max_attempts >= 1",
                "failed_attempts": "failed_attempts >= 0 AND failed_attempts <= max_attempts",
                "next_attempt": "next_attempt_time IS NULL OR status = 'PENDING'",
                "pending": "status <> 'PENDING' OR start_time IS NULL",
                "processing": "status <> 'PROCESSING' OR start_time IS NOT NULL",
                "completed": "status <> 'COMPLETED' OR (start_time IS NOT NULL"
                " AND complete_time IS NOT NULL AND progress = 1.0)",
                "failed": "status <> 'FAILED' OR (complete_time IS NOT NULL"
                " AND errors IS NOT NULL)",
                "cancelled": "(status = 'CANCELLED') = (cancel_time IS NOT NULL)",
                "ended": "(status IN ('COMPLETED', 'FAILED')) = (complete_time IS NOT NULL)",
                "result": "result_type IS NULL OR status = 'COMPLETED'",
                "result_whole": "(result_type IS NULL) = (result_value IS NULL)",
                "errors": "errors IS NULL OR status = 'FAILED'",
                "end_after_start": "complete_time >= start_time AND cancel_time >= start_time",
                "expire_after_create": "expire_time >= create_time",
                "lease": "(lease IS NULL) = (lease_expire_time IS NULL)"
                " AND (lease IS NULL OR status = 'PROCESSING')",
                "priority": "priority >= 0 AND priority <= 9",
                "queue": "queue_expire_time IS NULL OR status = 'PENDING'",
                "run": "run_expire_time IS NULL OR status = 'PROCESSING'",
                "cancel_request": "cancel_request_time IS NULL OR status <> 'PENDING'",
                "grace": "cancel_expire_time IS NULL"
                " OR (status = 'PROCESSING' AND cancel_request_time IS NOT NULL)",
                "checkpoint_whole": "(checkpoint_type IS NULL) = (checkpoint_value IS NULL)",
                "checkpoint": "checkpoint_type IS NULL OR status IN ('PENDING', 'PROCESSING')",
            }.items()
        ),
        postgresql_with={"fillfactor": 80},
    )
    for columns in (
        ("status", "create_time", "id"),
        ("owner", "status", "create_time", "id"),
        ("function", "status", "create_time", "id"),
        ("owner", "function", "status", "create_time", "id"),
        ("expire_time",),
    ):
        op.create_index(f"operations_{'_'.join(columns)}_idx", "operations", columns)
    op.create_index(
        "operations_owner_request_id_idx", "operations", ["owner", "request_id"], unique=True
    )
    _index(
        "operations",
        "pending",
        ["function", "owner", sa.text("priority DESC"), "create_time", "id"],
        "status = 'PENDING' AND next_attempt_time IS NULL",
    )
    for column, status in (
        ("next_attempt_time", "PENDING"),
        ("queue_expire_time", "PENDING"),
        ("run_expire_time", "PROCESSING"),
        ("cancel_expire_time", "PROCESSING"),
    ):
        _index("operations", column, [column], f"status = '{status}' AND {column} IS NOT NULL")
    _index(
        "operations",
        "unique_key",
        ["owner", "unique_key"],
        "status IN ('PENDING', 'PROCESSING') AND unique_key IS NOT NULL",
        unique=True,
    )
    _index("operations", "leased", ["id"], "status = 'PROCESSING' AND lease IS NOT NULL")
    _index(
        "operations",
        "processing_expire_time",
        ["expire_time"],
        "status = 'PROCESSING'",
    )
    _index(
        "operations",
        "unknown_status",
        ["create_time", "id"],
        "status NOT IN ('CANCELLED', 'COMPLETED', 'FAILED', 'PENDING', 'PROCESSING')",
    )


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("operation_id", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("transition", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("time", INSTANT, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker", sa.Text, comment="of the attempt, with its first event"),
        sa.Column("errors", sa.Text, comment="of the attempt, as in operations"),
        sa.PrimaryKeyConstraint("operation_id", "revision", name="events_pkey"),
        sa.CheckConstraint("revision >= 1", name=op.f("events_revision_check")),
    )
    op.create_index("events_time_idx", "events", ["time"])
    _index("events", "purge_time", ["time"], "transition = 'purge' AND revision > 1")


def _create_deliveries() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text, nullable=False, comment="the webhook-id, stable over attempts"),
        sa.Column("operation_id", sa.Text, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("callback_url", sa.Text, nullable=False),
        sa.Column("create_time", INSTANT, nullable=False),
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
            server_default=sa.text("0" if sqlite else "'1970-01-01 00:00:00+00'"),
            comment="while it is being sent: when its lease runs out",
        ),
        sa.Column("lease", sa.Text, comment="of the dispatcher that holds it"),
        sa.Column("settle_time", INSTANT),
        sa.Column("request_id", sa.Text, comment="of the last redelivery"),
        sa.Column("payload", sa.Text, comment="JSON of the operation, once that is gone"),
        sa.PrimaryKeyConstraint("id", name="deliveries_pkey"),
        sa.CheckConstraint(
            "status IN ('DELIVERED', 'EXHAUSTED', 'PENDING', 'STOPPED')",
            name=op.f("deliveries_status_check"),
        ),
        sa.CheckConstraint(
            "(status = 'PENDING') = (settle_time IS NULL)", name=op.f("deliveries_settled_check")
        ),
    )
    op.create_index(
        "deliveries_operation_id_revision_idx",
        "deliveries",
        ["operation_id", "revision"],
        unique=True,
    )
    op.create_index(
        "deliveries_owner_status_create_time_id_idx",
        "deliveries",
        ["owner", "status", "create_time", "id"],
    )
    _index("deliveries", "due", ["next_attempt_time"], "status = 'PENDING'")
    _index("deliveries", "left", ["settle_time"], "payload IS NOT NULL")
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


def _create_quotas() -> None:
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


def _create_serving_periods() -> None:
    op.create_table(
        "serving_periods",
        sa.Column("start_time", INSTANT, nullable=False, autoincrement=False),
        sa.Column("end_time", INSTANT, nullable=False, comment="extended while the period goes on"),
        sa.PrimaryKeyConstraint("start_time", name="serving_periods_pkey"),
    )


def _create_signing_secrets() -> None:
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
    op.create_index(
        "signing_secrets_owner_create_time_idx", "signing_secrets", ["owner", "create_time"]
    )
    _index(
        "signing_secrets",
        "current",
        ["owner"],
        "expire_time IS NULL",
        unique=True,
    )


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the whole key"),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("roles", sa.Text, nullable=False, comment="separated by spaces"),
        sa.Column("functions", sa.Text, nullable=False, comment="grants, separated by spaces"),
        sa.Column("create_time", INSTANT, nullable=False),
        sa.Column("expire_time", INSTANT),
        sa.Column("revoke_time", INSTANT),
        sa.Column("last_used_time", INSTANT),
        sa.Column("creator", sa.Text, comment="the subject that created it over the API"),
        sa.Column("request_id", sa.Text),
        sa.Column("fingerprint", sa.Text),
        sa.PrimaryKeyConstraint("key_id", name="api_keys_pkey"),
        sa.CheckConstraint("trim(subject) <> ''", name=op.f("api_keys_subject_check")),
        sa.CheckConstraint("length(digest) = 32", name=op.f("api_keys_digest_check")),
    )
    op.create_index(
        "api_keys_creator_request_id_idx", "api_keys", ["creator", "request_id"], unique=True
    )
    op.create_index("api_keys_create_time_key_id_idx", "api_keys", ["create_time", "key_id"])
    op.create_table(
        "service_keys",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="service_keys_pkey"),
        sa.CheckConstraint("length(value) >= 32", name=op.f("service_keys_value_check")),
    )


def _index(
    table: str,
    suffix: str,
    columns: Sequence[str | sa.TextClause],
    condition: str,
    *,
    unique: bool = False,
) -> None:
    """Create an index of the rows that meet a condition."""
    name = f"{table}_{suffix}_idx"
    where = sa.text(condition)
    op.create_index(
        name, table, list(columns), unique=unique, postgresql_where=where, sqlite_where=where
    )
