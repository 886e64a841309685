"""Status snapshots that interrupt a worker."""

import pytest

from milepost.domain.interruption import InterruptionKind, StatusSnapshot
from milepost.domain.operation import Status, new_operation_id

CANCELLED, EXPIRED, LEASE_LOST, CANCEL_REQUESTED = InterruptionKind


@pytest.mark.parametrize(
    ("status", "attempt", "error_code", "mine", "kind"),
    [
        (Status.PROCESSING, 1, None, 1, None),
        (Status.PROCESSING, 1, None, None, None),
        (Status.PROCESSING, 2, None, 1, LEASE_LOST),
        (Status.PENDING, 1, None, 1, LEASE_LOST),
        (Status.PENDING, 0, None, None, None),
        (Status.CANCELLED, 1, None, 1, CANCELLED),
        (Status.CANCELLED, 2, None, 1, CANCELLED),
        (Status.FAILED, 1, "EXPIRED", 1, EXPIRED),
        (Status.FAILED, 3, "LEASE_LOST", 3, LEASE_LOST),
        (Status.FAILED, 3, "RUN_TIMEOUT", 3, LEASE_LOST),
        (Status.FAILED, 3, "QUEUE_TIMEOUT", 3, LEASE_LOST),
        (Status.FAILED, 1, "CODEC", 1, None),
        (Status.COMPLETED, 1, None, 1, None),
        (Status.COMPLETED, 2, None, 1, LEASE_LOST),
    ],
)
def test_status_snapshot_decides_whether_the_worker_must_stop(
    status, attempt, error_code, mine, kind
):
    """A worker stops for a cancel, an expiry, a lost lease or a newer attempt, and nothing else."""
    status_snapshot = StatusSnapshot(
        id=new_operation_id(), status=status, revision=5, attempt=attempt, error_code=error_code
    )
    assert status_snapshot.interruption(mine) is kind


@pytest.mark.parametrize(
    ("status", "mine", "kind"),
    [
        (Status.PROCESSING, 2, CANCEL_REQUESTED),
        (Status.PROCESSING, None, CANCEL_REQUESTED),
        (Status.PROCESSING, 1, LEASE_LOST),
        (Status.CANCELLED, 2, CANCELLED),
        (Status.COMPLETED, 2, None),
        (Status.FAILED, 2, None),
    ],
)
def test_requested_cancel_concerns_the_running_attempt(status, mine, kind):
    """Only the worker of the running attempt is asked to stop, until the operation ends."""
    status_snapshot = StatusSnapshot(
        id=new_operation_id(),
        status=status,
        revision=5,
        attempt=2,
        error_code=None,
        is_cancel_requested=True,
    )
    assert status_snapshot.interruption(mine) is kind
