"""Free renewals: the leases that a replica knows, and what is charged all the same."""

from datetime import timedelta

import pytest

from milepost.access.leases import HeldLeases
from milepost.access.method import Method
from milepost.access.rate_limits import RateLimits
from milepost.access.token_buckets import LocalBuckets
from milepost.api.methods import METHODS
from milepost.api.renewals import renewed_by
from milepost.domain.errors import RateLimited
from milepost.domain.operation import Principal, Role
from milepost.domain.rates import Allowance, Allowances
from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests.unit.test_transitions import found

WALLY = Principal(subject="wally", roles=frozenset({Role.WORKER}), credential_id="w")
UPDATE: Method = METHODS["milepost.v1.WorkerService/UpdateProgress"]
LEASE_S = 30.0


class Clock:
    """A clock that the test sets."""

    now = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The clock of the leases."""
    return Clock()


@pytest.fixture
def leases(clock) -> HeldLeases:
    """The leases of one replica."""
    return HeldLeases(max_leases=3, clock=clock)


def leased(**overrides):
    """Return an operation that has just been claimed or renewed."""
    operation = found(**overrides)
    operation.lease_expire_time = operation.start_time + timedelta(seconds=LEASE_S)
    return operation


def test_renewals_after_a_third_of_the_lease_are_free(leases, clock):
    """A worker that renews a lease three times while it lasts pays for none of them."""
    operation = leased()
    leases.record("wally", operation)
    for _ in range(10):
        clock.now += LEASE_S / 3
        assert leases.takes_free_renewal("wally", operation.id)
        leases.record("wally", operation)


def test_renewals_in_quick_succession_are_charged(leases, clock):
    """Between two free renewals lies an eighth of the lease, whether they are answered or not."""
    operation = leased()
    leases.record("wally", operation)
    free = 0
    for _ in range(300):
        clock.now += LEASE_S / 300
        free += leases.takes_free_renewal("wally", operation.id)
    assert 7 <= free <= 8


def test_unknown_operations_are_charged(leases, clock):
    """Renewals of other operations, and of those that another worker holds, are charged."""
    operation = leased()
    leases.record("wally", operation)
    clock.now += LEASE_S / 2
    assert leases.takes_free_renewal("wally", operation.id)
    clock.now += LEASE_S / 3
    assert not leases.takes_free_renewal("wally", leased().id)
    assert not leases.takes_free_renewal("mallory", operation.id)


def test_lost_and_ended_leases_are_dropped(leases, clock):
    """After the end of a lease, or of its operation, a renewal is charged."""
    lost, ended = leased(), leased()
    for operation in (lost, ended):
        leases.record("wally", operation)
    ended.lease_expire_time = None
    leases.record("wally", ended)
    clock.now += LEASE_S / 2
    assert not leases.takes_free_renewal("wally", ended.id)
    clock.now += LEASE_S
    assert not leases.takes_free_renewal("wally", lost.id)
    leases.record("wally", leased())
    assert len(leases) == 1


def test_memory_is_bounded(leases):
    """Of more leases than there is room for, the oldest are charged."""
    for _ in range(10):
        leases.record("wally", leased())
    assert len(leases) == 3


@pytest.mark.parametrize("streamed", [False, True])
async def test_renewals_outlast_the_limit_of_writes(clock, streamed):
    """A worker without a write left still renews its leases; other writes are refused."""
    limits = RateLimits(LocalBuckets(clock=clock), Allowances(default=Allowance(worker_writes=1)))
    limits.leases = HeldLeases(clock=clock)
    operation = leased()
    limits.leases.record("wally", operation)
    kind = pb.StreamProgressRequest if streamed else pb.UpdateProgressRequest

    async def write(**fields):
        request = kind(operation_id=operation.id, **fields)
        if not streamed:
            await limits.charge(WALLY, UPDATE, renews=renewed_by(request))
            return

        async def messages():
            yield request

        async for _ in limits.charged(messages(), WALLY, UPDATE, renews=renewed_by):
            pass

    await write(progress=0.5)
    for fields in ({"progress": 0.0}, {"message": ""}, {"progress": 1.0, "message": "m"}, {}):
        with pytest.raises(RateLimited):  # the empty one comes too early
            await write(**fields)
    clock.now += LEASE_S / 3
    await write()
    with pytest.raises(RateLimited):
        await write()
