"""Leases over an interruption of the service: live workers keep their work, dead ones lose it."""

import signal
import time
from contextlib import contextmanager

import pytest
from google.protobuf import duration_pb2

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.client import FUNCTION
from tests.e2e.service import MEASURED_EVERY_S, Service
from tests.e2e.test_claim import claim
from tests.waiting import eventually

LEASE_S = 3.0
SWEEPS = 3
"""Sweeps after which a lease is lost if it does not survive the interruption."""
SLACK_S = 4.0


@pytest.fixture
def service(database_url, tmp_path):
    """A service of the test alone, on each database, which sweeps often."""
    with Service(
        database_url,
        tmp_path,
        lease_min_seconds="1",
        lease_sweep_seconds=MEASURED_EVERY_S,
        measure_seconds=MEASURED_EVERY_S,
    ) as service:
        yield service


@contextmanager
def frozen(service):
    """Freeze the service inside the block, as when its machine is suspended."""
    service.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        service.process.send_signal(signal.SIGCONT)


@contextmanager
def killed(service):
    """Kill the service before the block, and start it again afterwards."""
    service.kill()
    yield
    service.start()


def sweeps(service):
    """Return the number of sweeps of leases since the start of the process."""
    return service.metric("milepost_sweeper_passes_total", kind="leases")


@pytest.mark.parametrize("interruption", [frozen, killed])
def test_no_lease_is_lost_by_an_interruption(service, interruption):
    """After an interruption a worker can renew its lease, and an unrenewed one is still lost."""
    alice, worker = service.client("alice"), service.worker()
    for max_attempts in (1, 2):
        alice.create(max_attempts=max_attempts)
    lease = duration_pb2.Duration(seconds=round(LEASE_S))
    dead, live = sorted(
        claim(worker, FUNCTION, max_operations=2, lease=lease), key=lambda o: o.max_attempts
    )
    end = max(operation.lease_expire_time.ToMilliseconds() for operation in (dead, live)) / 1000
    with interruption(service):
        eventually(lambda: time.time() > end, within=LEASE_S + SLACK_S, what="the leases ran out")
    before = sweeps(service)
    eventually(lambda: sweeps(service) >= before + SWEEPS, within=SLACK_S, what="leases are swept")
    assert service.metric("milepost_leases_spared") == 2
    assert service.log_lines(event="leases could not be renewed") != []
    renewed = worker.transition("UpdateProgress", live.id, attempt=live.attempt)
    assert renewed.status == pb.OPERATION_STATUS_PROCESSING
    eventually(
        lambda: alice.get(dead.id).status == pb.OPERATION_STATUS_FAILED,
        within=LEASE_S + SLACK_S,
        what="the lease of the dead worker is lost",
    )
    assert [error.code for error in alice.get(dead.id).errors] == ["LEASE_LOST"]
