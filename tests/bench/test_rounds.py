"""Ratios are paired by round, and a run that says nothing is void."""

import pytest

from tests.bench import plan
from tests.bench.jobs import Tally
from tests.bench.report import Report
from tests.bench.rounds import Block, Cell, Measure, Reading, run

BLOCK = plan.block_name("update", 32)


def readings(rates: list[int], grown: int = 0) -> Measure:
    """Measurements that find these rates, one after the other, and 10 acknowledged moves if any."""
    left = iter(rates)

    def measure(_seconds: float) -> Reading:
        jobs = next(left)
        tally = Tally(jobs=jobs, calls=jobs, seconds=1.0, moves=10 if grown else 0)
        return Reading(tally, grown or None, None)

    return measure


def report_of(**cells: Measure) -> Report:
    """The report of a run of three rounds of one block."""
    names = {"echo": plan.ECHO, "again": plan.ECHO_AGAIN, "service": plan.POSTGRES}
    found = [Cell(name=names[name], measure=measure) for name, measure in cells.items()]
    results = run([Block(name=BLOCK, cells=found)], 3, 1.0, lambda _text: None)
    return Report(results=results, settings={})


def test_ratios_are_paired():
    """Each round is compared with itself, so that a slow minute changes no ratio."""
    report = report_of(echo=readings([100, 10, 50]), service=readings([50, 6, 20]))
    ratio = report.results.ratio(BLOCK, plan.POSTGRES, plan.ECHO)
    assert ratio is not None
    assert list(ratio.values) == [0.5, 0.6, 0.4]
    assert (ratio.low, ratio.median, ratio.high) == (0.4, 0.5, 0.6)


@pytest.mark.parametrize(("rates", "void"), [([95, 100, 130], False), ([80, 85, 100], True)])
def test_the_null_pair_decides(rates, void):
    """A run in which two identical servers differ by more than a tenth is void."""
    report = report_of(echo=readings([100, 100, 100]), again=readings(rates))
    assert bool(report.faults()) == void


def test_every_acknowledged_move_must_be_in_the_database():
    """A run is void when the revisions grew by more or less than was acknowledged."""
    good = report_of(echo=readings([1, 1, 1]), service=readings([5, 5, 5], grown=10))
    assert not good.faults()
    bad = report_of(echo=readings([1, 1, 1]), service=readings([5, 5, 5], grown=9))
    assert len(bad.faults()) == 3


def test_every_cell_is_measured_once_a_round():
    """The order is drawn anew in each round, and nothing is left out."""
    seen: list[str] = []

    def noting(name: str) -> Measure:
        def measure(_seconds: float) -> Reading:
            seen.append(name)
            return Reading(Tally(jobs=1, seconds=1.0), None, None)

        return measure

    blocks = [
        Block(name=name, cells=[Cell(name=cell, measure=noting(name + cell)) for cell in "xy"])
        for name in "ab"
    ]
    run(blocks, 5, 1.0, lambda _text: None)
    for begin in range(0, 20, 4):
        of_round = seen[begin : begin + 4]
        assert sorted(of_round) == ["ax", "ay", "bx", "by"]
        assert of_round[0][0] == of_round[1][0]
