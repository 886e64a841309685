"""The constraints of the tables refuse rows that the domain rules out."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from milepost.domain.operation import Status
from milepost.storage.tables import operations
from tests import factories

EARLY = factories.LONG_AGO
LATE = EARLY + timedelta(hours=1)
HOUR = timedelta(hours=1)
SURPLUS = {"result_type": "t", "result_value": b""}
SAVED = {"checkpoint_type": "t", "checkpoint_value": b""}

# The constraint, the status of the row, and the illegal columns.
ILLEGAL: list[tuple[str, Status, dict[str, Any]]] = [
    ("id", Status.PENDING, {"id": "op_123"}),
    ("id", Status.PENDING, {"id": "xx_" + "0" * 24}),
    ("function", Status.PENDING, {"function": ""}),
    ("function", Status.PENDING, {"function": "  "}),
    ("owner", Status.PENDING, {"owner": " "}),
    ("status", Status.PENDING, {"status": "ASLEEP"}),
    ("status", Status.PENDING, {"status": "pending"}),
    ("progress", Status.PROCESSING, {"progress": 1.01}),
    ("progress", Status.PROCESSING, {"progress": -0.01}),
    ("revision", Status.PENDING, {"revision": 0}),
    ("attempt", Status.PENDING, {"attempt": -1}),
    ("attempt", Status.PENDING, {"max_attempts": 0}),
    ("failed_attempts", Status.PENDING, {"failed_attempts": -1}),
    ("failed_attempts", Status.PENDING, {"failed_attempts": 4}),
    ("pending", Status.PENDING, {"start_time": LATE}),
    ("processing", Status.PROCESSING, {"start_time": None}),
    ("completed", Status.COMPLETED, {"start_time": None}),
    ("completed", Status.COMPLETED, {"progress": 0.5}),
    ("completed", Status.COMPLETED, {"complete_time": None}),
    ("failed", Status.FAILED, {"errors": None}),
    ("failed", Status.FAILED, {"complete_time": None}),
    ("cancelled", Status.CANCELLED, {"cancel_time": None}),
    ("cancelled", Status.PROCESSING, {"cancel_time": LATE}),
    ("ended", Status.PROCESSING, {"complete_time": LATE}),
    ("ended", Status.CANCELLED, {"complete_time": LATE}),
    ("result", Status.PROCESSING, SURPLUS),
    ("result", Status.FAILED, SURPLUS),
    ("result_whole", Status.COMPLETED, {"result_type": "t"}),
    ("result_whole", Status.COMPLETED, {"result_value": b""}),
    ("errors", Status.COMPLETED, {"errors": "[]"}),
    ("errors", Status.CANCELLED, {"errors": "[]"}),
    ("end_after_start", Status.COMPLETED, {"complete_time": EARLY}),
    ("end_after_start", Status.CANCELLED, {"start_time": factories.FAR_AWAY}),
    ("expire_after_create", Status.PENDING, {"expire_time": EARLY - HOUR}),
    ("lease", Status.PROCESSING, {"lease": HOUR}),
    ("lease", Status.PROCESSING, {"lease_expire_time": LATE}),
    ("lease", Status.PENDING, {"lease": HOUR, "lease_expire_time": LATE}),
    ("priority", Status.PENDING, {"priority": -1}),
    ("priority", Status.PENDING, {"priority": 10}),
    ("next_attempt", Status.PROCESSING, {"next_attempt_time": LATE}),
    ("next_attempt", Status.FAILED, {"next_attempt_time": LATE}),
    ("queue", Status.PROCESSING, {"queue_expire_time": LATE}),
    ("run", Status.PENDING, {"run_expire_time": LATE}),
    ("run", Status.COMPLETED, {"run_expire_time": LATE}),
    ("cancel_request", Status.PENDING, {"cancel_request_time": LATE}),
    ("grace", Status.PROCESSING, {"cancel_expire_time": LATE}),
    ("grace", Status.CANCELLED, {"cancel_request_time": EARLY, "cancel_expire_time": LATE}),
    ("checkpoint_whole", Status.PROCESSING, {"checkpoint_type": "t"}),
    ("checkpoint_whole", Status.PENDING, {"checkpoint_value": b""}),
    ("checkpoint", Status.COMPLETED, SAVED),
    ("checkpoint", Status.CANCELLED, SAVED),
]
REQUIRED = ["id", "function", "owner", "status", "create_time", "expire_time", "ttl", "revision"]


def refusal(engine, row):
    """Return the error of the database for the row, or None if it is stored."""
    try:
        with engine.begin() as connection:
            connection.execute(sa.insert(operations), row)
    except IntegrityError as error:
        return str(error.orig)
    return None


@pytest.mark.parametrize("status", Status)
async def test_legal_rows_are_stored(engine, status):
    """A legal row of each status is stored."""
    assert refusal(engine, factories.row(status)) is None


def test_illegal_rows_are_refused(engine):
    """A row that the domain rules out is refused by the constraint of that rule."""
    for rule, status, wrong in ILLEGAL:
        found = refusal(engine, factories.row(status, **wrong)) or "stored"
        assert "_check" in found, (rule, status, wrong, found)
        # A row without its end breaks two constraints; the database names either.
        rules = {rule, "ended"} if "complete_time" in wrong else {rule}
        assert any(f"operations_{name}_check" in found for name in rules), (rule, wrong, found)


def test_required_columns(engine):
    """A row without a required column is refused."""
    for column in REQUIRED:
        found = refusal(engine, factories.row(**{column: None})) or "stored"
        assert "null" in found.lower(), column


def test_every_rule_is_tried():
    """Every CHECK constraint of the table has an illegal row in these tests."""
    names = {
        str(constraint.name)
        for constraint in operations.constraints
        if isinstance(constraint, sa.CheckConstraint)
    }
    assert names == {f"operations_{rule}_check" for rule, _, _ in ILLEGAL}
