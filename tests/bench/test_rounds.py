"""Ratios are paired by round, and a run without a meaningful result is void."""

import pytest

from tests.bench import plan
from tests.bench.jobs import Tally
from tests.bench.report import Report
from tests.bench.rounds import Block, Cell, Measure, Reading, run
from tests.bench.targets import targets

BLOCK = plan.block_name("update", 32)


def readings(rates: list[int], grown: int = 0) -> Measure:
    """Return a measurement that returns these rates in turn."""
    left = iter(rates)

    def measure(_seconds: float) -> Reading:
        jobs = next(left)
        tally = Tally(jobs=jobs, calls=jobs, seconds=1.0, transitions=10 if grown else 0)
        return Reading(tally, grown or None, None)

    return measure


def report_of(**cells: Measure) -> Report:
    """The report of a run of three rounds of one block."""
    names = {"echo": plan.ECHO, "again": plan.ECHO_AGAIN, "service": plan.POSTGRES}
    found = [Cell(name=names[name], measure=measure) for name, measure in cells.items()]
    results = run([Block(name=BLOCK, cells=found)], 3, 1.0, lambda _text: None)
    return Report(results=results, settings={})


def test_ratios_are_paired():
    """A ratio compares subjects of one round, so that a slow minute does not change it."""
    report = report_of(echo=readings([100, 10, 50]), service=readings([50, 6, 20]))
    ratio = report.results.ratio(BLOCK, plan.POSTGRES, plan.ECHO)
    assert ratio is not None
    assert list(ratio.values) == [0.5, 0.6, 0.4]
    assert (ratio.low, ratio.median, ratio.high) == (0.4, 0.5, 0.6)


def test_a_block_may_be_measured_several_times_a_round():
    """A repeated block runs as a whole each time, so that its ratios are of the same minute."""
    cells = [
        Cell(name=plan.ECHO, measure=readings([100, 10, 50, 20])),
        Cell(name=plan.POSTGRES, measure=readings([50, 6, 20, 14])),
    ]
    results = run([Block(name=BLOCK, cells=cells, times=2)], 2, 1.0, lambda _text: None)
    ratio = results.ratio(BLOCK, plan.POSTGRES, plan.ECHO)
    assert ratio is not None
    assert list(ratio.values) == [0.5, 0.6, 0.4, 0.7]


@pytest.mark.parametrize(("rates", "void"), [([95, 100, 130], False), ([80, 85, 100], True)])
def test_the_null_pair_decides(rates, void):
    """A run in which two identical servers differ by more than a tenth is void."""
    report = report_of(echo=readings([100, 100, 100]), again=readings(rates))
    assert bool(report.faults()) == void


def test_every_acknowledged_transition_must_be_in_the_database():
    """A run is void when the revisions grew by more or less than was acknowledged."""
    good = report_of(echo=readings([1, 1, 1]), service=readings([5, 5, 5], grown=10))
    assert not good.faults()
    bad = report_of(echo=readings([1, 1, 1]), service=readings([5, 5, 5], grown=9))
    assert len(bad.faults()) == 3


def test_every_cell_is_measured_in_each_round():
    """Each round has another order, runs every cell, and keeps blocks together."""
    seen: list[str] = []

    def noting(name: str) -> Measure:
        def measure(_seconds: float) -> Reading:
            seen.append(name)
            return Reading(Tally(jobs=1, seconds=1.0), None, None)

        return measure

    blocks = [
        Block(
            name=name,
            cells=[Cell(name=cell, measure=noting(name + cell)) for cell in "xy"],
            times=times,
        )
        for name, times in (("a", 1), ("b", 2))
    ]
    run(blocks, 5, 1.0, lambda _text: None)
    assert len(seen) == 5 * 6
    for begin in range(0, 5 * 6, 6):
        of_round = seen[begin : begin + 6]
        assert sorted(of_round) == ["ax", "ay", "bx", "bx", "by", "by"]
        for first, second in zip(of_round[::2], of_round[1::2], strict=True):
            assert first[0] == second[0]
            assert first != second


def test_targets_need_exactly_what_is_measured():
    """Each target compares two subjects of its block, and each subject belongs to a target."""
    measured = {(each.name, subject) for each in plan.COMPARISONS for subject in each.subjects}
    needed = {(each.block, subject) for each in targets() for subject in (each.cell, each.base)}
    null_pair = {(block, plan.ECHO_AGAIN) for block, _ in needed}
    assert needed <= measured
    assert measured <= needed | null_pair
