"""Whole lives under faults: nothing is lost, and everything was asked for."""

import pytest

from tests.faults.proof import sizes
from tests.faults.proof.cluster import fresh_database
from tests.faults.proof.disk import BLOCK, small_disk
from tests.faults.proof.history import Call, History, Outcome
from tests.faults.proof.nemesis import Fault
from tests.faults.proof.run import FLOORS, Report, run

SEED = 18


@pytest.mark.faults
def test_disk_can_be_filled():
    """This machine lets the runs fill a disk; where it does not, they have that fault left out."""
    with small_disk(1) as disk:
        if disk is None:
            pytest.skip("this process may not mount a disk: a full one is UNTESTED")
        with disk.full(), pytest.raises(OSError, match="No space left"):
            (disk.folder / "more").write_bytes(BLOCK)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(sizes.SMALL, id="small", marks=pytest.mark.timeout(180)),
        pytest.param(sizes.FULL, id="full", marks=[pytest.mark.faults, pytest.mark.timeout(5_400)]),
    ],
)
async def test_nothing_is_lost(tmp_path, size):
    """After whole lives under faults the checker finds no violation; the seed replays the plan."""
    with fresh_database(size) as database:
        if database.disk is None:
            size = sizes.without(size, Fault.FILL_DISK)
        report = await run(SEED, size, database, tmp_path)
    print(report)
    report.history.save(tmp_path / "history.jsonl")  # pytest keeps it after a failure
    assert report.violations == []
    assert report.faults == size.faults
    assert report.rare == {}


def test_run_that_achieves_nothing_proves_nothing():
    """A run whose calls are all refused has no violation, and is not taken for a proof."""
    refused = Call(
        client="alice", method="CreateOperation", begin=0, end=1, outcome=Outcome.REFUSED
    )
    report = Report(SEED, 1, 1.0, History([refused]), [], [])
    assert report.rare == dict.fromkeys(FLOORS, 0)
