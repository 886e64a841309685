"""The next transition of an operation and its deadline, for callers, operators and alerts."""

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from milepost.domain.operation import OperationId
from milepost.domain.sweep import RELEASE, SWEEPS, Sweep
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests import factories
from tests.e2e import fork_server
from tests.e2e.client import FUNCTION, Client
from tests.e2e.service import MEASURED_EVERY_S, Service
from tests.e2e.test_claim import claim
from tests.waiting import eventually

SOON_S = 5.0
MAX_WAIT_S = 30.0


@pytest.fixture
def healthy(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service on each database with the default settings, which updates its metrics often."""
    with Service(database_url, tmp_path, measure_seconds=MEASURED_EVERY_S) as service:
        yield service


def listed(service: Service, client: Client) -> str:
    """Return the output of `milepost ops list`."""
    outside = {name: value for name, value in os.environ.items() if "MILEPOST" not in name}
    access = {"MILEPOST_ADDRESS": service.address, "MILEPOST_API_KEY": client.key}
    done = fork_server.run("ops", "list", environment={**outside, **access}, timeout=MAX_WAIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def overdue(service: Service) -> dict[Sweep, float]:
    """Return the number of overdue operations, by the sweep that is due."""
    return {
        sweep: service.metric("milepost_operations_overdue", sweep=sweep.name) for sweep in SWEEPS
    }


def measured(service: Service) -> int:
    """Return the number of transitions for which overdue operations are counted."""
    page = service.probe("/metrics")[1]
    return len(re.findall(r"^milepost_operations_overdue{", page, re.MULTILINE))


def test_each_active_status_has_a_next_step(alice, worker):
    """Each active status has its next transition and the deadline of it."""
    function = f"steps.{alice.subject}"
    pending = alice.create(function=function)
    assert (pending.next_step, pending.next_step_deadline) == (
        pb.NEXT_STEP_CLAIM,
        pending.expire_time,
    )
    (leased,) = claim(worker, function)
    assert (leased.next_step, leased.next_step_deadline) == (
        pb.NEXT_STEP_RENEWAL,
        leased.lease_expire_time,
    )
    started = alice.create_in("PROCESSING", function=function)
    assert (started.next_step, started.next_step_deadline) == (
        pb.NEXT_STEP_END,
        started.expire_time,
    )
    done = worker.transition("CompleteOperation", leased.id)
    assert done.next_step == pb.NEXT_STEP_UNSPECIFIED
    assert not done.HasField("next_step_deadline")
    for operation in (started, done):
        assert alice.get(operation.id) == operation


def test_nothing_is_overdue_in_a_healthy_service(healthy):
    """No operation is overdue while work is claimed, lost, swept and ended normally."""
    alice, worker = healthy.client("alice"), healthy.worker()
    eventually(lambda: measured(healthy) > 0, within=SOON_S, what="it is counted")
    assert set(overdue(healthy).values()) == {0.0}
    alice.create()
    (lost,) = claim(worker, FUNCTION)
    factories.age(healthy.engine, OperationId(lost.id), timedelta(seconds=40))
    eventually(
        lambda: alice.get(lost.id).status == pb.OPERATION_STATUS_PENDING,
        within=SOON_S,
        what="the lost lease is swept",
    )
    (again,) = claim(worker, FUNCTION)
    worker.transition("CompleteOperation", again.id, attempt=2)
    eventually(
        lambda: set(overdue(healthy).values()) == {0.0}, within=SOON_S, what="nothing is overdue"
    )


def test_overdue_operations_are_shown(unswept):
    """Without a sweeper, the list shows the overdue operations and the metric counts them."""
    alice, worker = unswept.client("alice"), unswept.worker()
    alice.create()
    (late,) = claim(worker, FUNCTION)
    waiting = alice.create()
    factories.age(unswept.engine, OperationId(late.id), timedelta(seconds=100))
    eventually(
        lambda: overdue(unswept)[RELEASE] == 1,
        within=SOON_S,
        what="the overdue is counted",
    )
    lines = {line.split()[0]: line for line in listed(unswept, alice).splitlines() if line}
    assert "NEXT" in lines["ID"]
    assert re.search(r"renewal \d+ (s|min) LATE", lines[late.id])
    assert re.search(r"claim within (1 d|2\d h)", lines[waiting.id])
