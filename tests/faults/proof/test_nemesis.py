"""The plan of the faults: it follows from its seed alone, and fits into the run."""

from collections import Counter

from tests.faults.proof import sizes
from tests.faults.proof.nemesis import CAUSES, Fault, plan
from tests.faults.proof.run import Size


def planned(seed, size: Size):
    """Return the plan of a run with two replicas."""
    return plan(seed, size.lives, size.faults, replicas=2)


def test_plan_follows_from_its_seed():
    """One seed makes the same plan again, another one a different plan."""
    assert planned(1, sizes.FULL) == planned(1, sizes.FULL)
    assert planned(1, sizes.FULL) != planned(2, sizes.FULL)


def test_every_fault_comes_during_the_run():
    """All faults come in the order of the plan, before the last life begins."""
    for size in (sizes.SMALL, sizes.FULL, sizes.of(10)):
        found = planned(1, size)
        assert Counter(each.fault for each in found) == size.faults
        times = [each.after for each in found]
        assert times == sorted(times)
        assert max(times) < size.lives


def test_full_size():
    """The full size has every fault, 200 kills of replicas and 40 of the database."""
    faults = sizes.FULL.faults
    assert faults.keys() == set(Fault) == CAUSES.keys()
    assert sizes.FULL.lives == 20_000
    assert faults[Fault.KILL_REPLICA] == 200
    assert faults[Fault.KILL_DATABASE] + faults[Fault.KILL_SESSION] == 40
