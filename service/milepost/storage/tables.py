"""The tables, with the constraints that every row meets.

The CHECK constraints repeat the rules of the domain on purpose, so that no writer can store an
illegal row. The migrations under ``migrations/versions`` create the same schema; a test compares
the two on both databases.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from milepost.domain.delivery import DeliveryStatus
from milepost.domain.operation import ID_LENGTH, ID_PREFIX, Status
from milepost.domain.transitions import ACTIVE, CLAIMABLE, TABLE, Transition
from milepost.storage.dialects import Instant, Span, long_ago

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)


def _quoted(statuses: Iterable[Status | DeliveryStatus]) -> str:
    return ", ".join(f"'{status}'" for status in sorted(statuses))


def status_condition(statuses: Collection[Status]) -> str:
    """Return the condition of a partial index, which statements must repeat to use the index."""
    quoted = _quoted(statuses)
    return f"status = {quoted}" if len(statuses) == 1 else f"status IN ({quoted})"


PURGE_EVENT: Final = "transition = 'purge' AND revision > 1"
"""The condition of the partial index of purge events."""
UNKNOWN_STATUS: Final = f"status NOT IN ({_quoted(Status)})"
"""The condition of the partial index of the statuses that only a newer release knows. A release
that adds a status adds an index with its own condition, and leaves this one to its predecessor."""

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("function", sa.Text, nullable=False),
    sa.Column("version", sa.Text),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("progress", sa.Double),
    sa.Column("progress_message", sa.Text),
    sa.Column("progress_time", Instant),
    sa.Column("result_type", sa.Text),
    sa.Column("result_value", sa.LargeBinary),
    sa.Column("errors", sa.Text, comment="JSON list of {code, message, source, details}"),
    sa.Column("metadata", sa.Text, comment="JSON object, the caller's own"),
    sa.Column("original_request_id", sa.Text),
    sa.Column("callback_url", sa.Text),
    sa.Column("create_time", Instant, nullable=False),
    sa.Column("start_time", Instant),
    sa.Column("complete_time", Instant),
    sa.Column("cancel_time", Instant),
    sa.Column("expire_time", Instant, nullable=False),
    sa.Column("ttl", Span, nullable=False),
    sa.Column("retry_after", Span, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column("failed_attempts", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_attempt_time", Instant, comment="not claimable before; absent once it is"),
    sa.Column("worker", sa.Text),
    sa.Column("lease", Span, comment="how long each renewal holds; absent when not leased"),
    sa.Column("lease_expire_time", Instant),
    sa.Column("request_id", sa.Text, comment="of the create"),
    sa.Column("fingerprint", sa.Text, nullable=False, comment="of the create's content"),
    sa.Column("progress_request_id", sa.Text, comment="of the last progress"),
    sa.Column("callback_events", sa.Text, comment="event types, separated by spaces"),
    sa.Column("trace_context", sa.Text, comment="traceparent of the create"),
    sa.Column("priority", sa.SmallInteger, nullable=False, server_default="5"),
    sa.Column("schedule_time", Instant),
    sa.Column("unique_key", sa.Text),
    sa.Column("initial_backoff", Span, nullable=False),
    sa.Column("backoff", Span, nullable=False, comment="the next pause between attempts"),
    sa.Column("backoff_multiplier", sa.Double, nullable=False),
    sa.Column("max_backoff", Span, nullable=False),
    sa.Column("queue_timeout", Span),
    sa.Column("run_timeout", Span),
    sa.Column("queue_expire_time", Instant, comment="end of queue_timeout, while pending"),
    sa.Column("run_expire_time", Instant, comment="end of run_timeout, while processing"),
    sa.Column("cancel_request_time", Instant),
    sa.Column("cancel_delivered_time", Instant),
    sa.Column("cancel_expire_time", Instant, comment="end of the grace, while processing"),
    sa.Column("cancel_reason", sa.Text),
    sa.Column("checkpoint_type", sa.Text),
    sa.Column("checkpoint_value", sa.LargeBinary),
    sa.CheckConstraint(
        f"length(id) = {ID_LENGTH} AND substr(id, 1, {len(ID_PREFIX)}) = '{ID_PREFIX}'", name="id"
    ),
    sa.CheckConstraint("trim(function) <> ''", name="function"),
    sa.CheckConstraint("trim(owner) <> ''", name="owner"),
    sa.CheckConstraint(f"status IN ({_quoted(Status)})", name="status"),
    sa.CheckConstraint("progress >= 0.0 AND progress <= 1.0", name="progress"),
    sa.CheckConstraint("revision >= 1", name="revision"),
    sa.CheckConstraint("attempt >= 0 AND max_attempts >= 1", name="attempt"),
    sa.CheckConstraint(
        "failed_attempts >= 0 AND failed_attempts <= max_attempts", name="failed_attempts"
    ),
    sa.CheckConstraint("next_attempt_time IS NULL OR status = 'PENDING'", name="next_attempt"),
    sa.CheckConstraint("status <> 'PENDING' OR start_time IS NULL", name="pending"),
    sa.CheckConstraint("status <> 'PROCESSING' OR start_time IS NOT NULL", name="processing"),
    sa.CheckConstraint(
        "status <> 'COMPLETED' OR (start_time IS NOT NULL AND complete_time IS NOT NULL"
        " AND progress = 1.0)",
        name="completed",
    ),
    sa.CheckConstraint(
        "status <> 'FAILED' OR (complete_time IS NOT NULL AND errors IS NOT NULL)", name="failed"
    ),
    sa.CheckConstraint("(status = 'CANCELLED') = (cancel_time IS NOT NULL)", name="cancelled"),
    sa.CheckConstraint(
        "(status IN ('COMPLETED', 'FAILED')) = (complete_time IS NOT NULL)", name="ended"
    ),
    sa.CheckConstraint("result_type IS NULL OR status = 'COMPLETED'", name="result"),
    sa.CheckConstraint("(result_type IS NULL) = (result_value IS NULL)", name="result_whole"),
    sa.CheckConstraint("errors IS NULL OR status = 'FAILED'", name="errors"),
    sa.CheckConstraint(
        "complete_time >= start_time AND cancel_time >= start_time", name="end_after_start"
    ),
    sa.CheckConstraint("expire_time >= create_time", name="expire_after_create"),
    sa.CheckConstraint(
        "(lease IS NULL) = (lease_expire_time IS NULL)"
        " AND (lease IS NULL OR status = 'PROCESSING')",
        name="lease",
    ),
    sa.CheckConstraint("priority >= 0 AND priority <= 9", name="priority"),
    sa.CheckConstraint("queue_expire_time IS NULL OR status = 'PENDING'", name="queue"),
    sa.CheckConstraint("run_expire_time IS NULL OR status = 'PROCESSING'", name="run"),
    sa.CheckConstraint("cancel_request_time IS NULL OR status <> 'PENDING'", name="cancel_request"),
    sa.CheckConstraint(
        "cancel_expire_time IS NULL OR (status = 'PROCESSING' AND cancel_request_time IS NOT NULL)",
        name="grace",
    ),
    sa.CheckConstraint(
        "(checkpoint_type IS NULL) = (checkpoint_value IS NULL)", name="checkpoint_whole"
    ),
    sa.CheckConstraint(
        "checkpoint_type IS NULL OR status IN ('PENDING', 'PROCESSING')", name="checkpoint"
    ),
    # No index has a column that progress changes, so that PostgreSQL can update in place (HOT);
    # the fill factor reserves the space for it.
    sa.Index(None, "owner", "request_id", unique=True),
    # The lists, each a merge over the statuses; see `storage/pages.py`.
    sa.Index(None, "status", "create_time", "id"),
    sa.Index(None, "owner", "status", "create_time", "id"),
    sa.Index(None, "function", "status", "create_time", "id"),
    sa.Index(None, "owner", "function", "status", "create_time", "id"),
    sa.Index(None, "expire_time"),
    # Partial indexes, mostly of unfinished work, which grow with that work and not with the table.
    *(
        sa.Index(
            f"operations_{name}_idx",
            *columns,
            postgresql_where=sa.text(condition),
            sqlite_where=sa.text(condition),
        )
        for name, columns, condition in (
            (
                "pending",
                ("function", "owner", sa.text("priority DESC"), "create_time", "id"),
                f"{status_condition(CLAIMABLE)} AND next_attempt_time IS NULL",
            ),
            (
                "next_attempt_time",
                ("next_attempt_time",),
                f"{status_condition(CLAIMABLE)} AND next_attempt_time IS NOT NULL",
            ),
            (
                "leased",
                ("id",),
                f"{status_condition(TABLE[Transition.RELEASE].sources)} AND lease IS NOT NULL",
            ),
            (
                "processing_expire_time",
                ("expire_time",),
                status_condition(TABLE[Transition.EXPIRE].sources),
            ),
            *(
                (
                    column,
                    (column,),
                    f"{status_condition(sources)} AND {column} IS NOT NULL",
                )
                for column, sources in (
                    ("queue_expire_time", TABLE[Transition.TIME_OUT].sources),
                    ("run_expire_time", TABLE[Transition.RETRY].sources),
                    ("cancel_expire_time", TABLE[Transition.ACKNOWLEDGE].sources),
                )
            ),
            ("unknown_status", ("create_time", "id"), UNKNOWN_STATUS),
        )
    ),
    sa.Index(
        "operations_unique_key_idx",
        "owner",
        "unique_key",
        unique=True,
        postgresql_where=sa.text(f"{status_condition(ACTIVE)} AND unique_key IS NOT NULL"),
        sqlite_where=sa.text(f"{status_condition(ACTIVE)} AND unique_key IS NOT NULL"),
    ),
    postgresql_with={"fillfactor": 80},
)
"""One row per operation."""

events = sa.Table(
    "events",
    metadata,
    sa.Column("operation_id", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False, autoincrement=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("transition", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("request_id", sa.Text),
    sa.Column("reason", sa.Text),
    sa.Column("time", Instant, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("worker", sa.Text, comment="of the attempt, with its first event"),
    sa.Column("errors", sa.Text, comment="of the attempt, as in operations"),
    sa.CheckConstraint("revision >= 1", name="revision"),
    *(
        # On PostgreSQL each partition has a primary key of its own: one of the whole table would
        # need the time, and would not be unique without it either.
        item.ddl_if(dialect="sqlite")
        for item in (
            sa.PrimaryKeyConstraint("operation_id", "revision"),
            sa.Index(None, "time"),
            # A purge is never the first event. The redundant condition keeps the planner from this
            # index for the purge event of a single operation.
            sa.Index("events_purge_time_idx", "time", sqlite_where=sa.text(PURGE_EVENT)),
        )
    ),
    postgresql_partition_by="RANGE (time)",
)
"""One row per change of status. No foreign key, because events outlive their operation.

On PostgreSQL each day (UTC) has a partition, which ``event_days.py`` makes and drops; see
``event_partitions.py`` for the others.
"""

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Text, primary_key=True, comment="the webhook-id, stable over attempts"),
    sa.Column("operation_id", sa.Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("callback_url", sa.Text, nullable=False),
    sa.Column("create_time", Instant, nullable=False),
    # The release before the dispatcher does not write the columns with a default.
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
        Instant,
        nullable=False,
        server_default=long_ago(),
        comment="while it is being sent: when its lease runs out",
    ),
    sa.Column("lease", sa.Text, comment="of the dispatcher that holds it"),
    sa.Column("settle_time", Instant),
    sa.Column("request_id", sa.Text, comment="of the last redelivery"),
    sa.Column("payload", sa.Text, comment="JSON of the operation, once that is gone"),
    sa.CheckConstraint(f"status IN ({_quoted(DeliveryStatus)})", name="status"),
    sa.CheckConstraint("(status = 'PENDING') = (settle_time IS NULL)", name="settled"),
    sa.Index(None, "operation_id", "revision", unique=True),
    # Without settled deliveries: a claim costs the same after a million of them.
    sa.Index(
        "deliveries_due_idx",
        "next_attempt_time",
        postgresql_where=sa.text("status = 'PENDING'"),
        sqlite_where=sa.text("status = 'PENDING'"),
    ),
    sa.Index(
        "deliveries_left_idx",
        "settle_time",
        postgresql_where=sa.text("payload IS NOT NULL"),
        sqlite_where=sa.text("payload IS NOT NULL"),
    ),
    sa.Index(None, "owner", "status", "create_time", "id"),
)
"""One row per webhook, written with the transition that causes it."""

quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column(
        "reserved", sa.Integer, nullable=False, comment="at least the number of active operations"
    ),
    sa.Column("asked", sa.Integer, nullable=False, comment="by the last creates"),
    sa.Column("granted", sa.Integer, nullable=False, comment="of what was asked last"),
    sa.CheckConstraint("reserved >= 0 AND asked >= 0 AND granted >= 0", name="counts"),
    postgresql_with={"fillfactor": 50},  # it is updated in place by every create
)
"""One row per owner that has created an operation: the lock that serializes its creates."""

delivery_attempts = sa.Table(
    "delivery_attempts",
    metadata,
    sa.Column("delivery_id", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("start_time", Instant, nullable=False),
    sa.Column("duration", Span, nullable=False),
    sa.Column("status_code", sa.Integer),
    sa.Column("error", sa.Text),
    sa.CheckConstraint("number >= 1", name="number"),
)
"""One row per attempt to send a webhook; removed with its delivery."""

serving_periods = sa.Table(
    "serving_periods",
    metadata,
    sa.Column("start_time", Instant, primary_key=True),
    sa.Column("end_time", Instant, nullable=False, comment="extended while the period goes on"),
)
"""The times in which a replica could take renewals of leases; see `storage/serving_periods.py`."""

signing_secrets = sa.Table(
    "signing_secrets",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("key_id", sa.Text, nullable=False, comment="of the master key"),
    sa.Column("sealed", sa.LargeBinary, nullable=False, comment="encrypted by that key"),
    sa.Column("create_time", Instant, nullable=False),
    sa.Column("expire_time", Instant, comment="when it stops signing; absent while current"),
    sa.Column("request_id", sa.Text, comment="of the rotation that made it"),
    sa.CheckConstraint("trim(owner) <> ''", name="owner"),
    sa.Index(
        "signing_secrets_current_idx",
        "owner",
        unique=True,
        postgresql_where=sa.text("expire_time IS NULL"),
        sqlite_where=sa.text("expire_time IS NULL"),
    ),
    sa.Index(None, "owner", "create_time"),
)
"""The secrets that sign webhooks: for each owner the current one, and the previous for a day."""

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("key_id", sa.Text, primary_key=True),
    sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the whole key"),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("roles", sa.Text, nullable=False, comment="separated by spaces"),
    sa.Column("functions", sa.Text, nullable=False, comment="grants, separated by spaces"),
    sa.Column("create_time", Instant, nullable=False),
    sa.Column("expire_time", Instant),
    sa.Column("revoke_time", Instant),
    sa.Column("last_used_time", Instant),
    sa.Column("creator", sa.Text, comment="the subject that created it over the API"),
    sa.Column("request_id", sa.Text),
    sa.Column("fingerprint", sa.Text),
    sa.CheckConstraint("trim(subject) <> ''", name="subject"),
    sa.CheckConstraint("length(digest) = 32", name="digest"),
    sa.Index(None, "creator", "request_id", unique=True),
    sa.Index(None, "create_time", "key_id"),
)
"""One row per API key. The key itself is shown once and never stored."""

service_keys = sa.Table(
    "service_keys",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.LargeBinary, nullable=False),
    sa.CheckConstraint("length(value) >= 32", name="value"),
)
"""Random keys that only the replicas know, such as the one of page tokens."""
