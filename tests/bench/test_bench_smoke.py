"""A minimal run of the whole bench against the real service."""

import json

import pytest
from rich.console import Console

from tests.bench import plan, rounds
from tests.bench.cores import LOAD_CORE, running_on
from tests.bench.fleet import Fleet
from tests.bench.report import Report

CALLERS = 32
STARTED = 256
"""The size of the largest batch, as a batch must not contain an operation twice."""


@pytest.mark.timeout(600)  # it starts many servers
def test_one_tiny_round_of_everything(tmp_path):
    """Every server starts, answers every kind of call, and stores every acknowledged transition."""
    comparisons = [
        each for each in plan.COMPARISONS if each.callers == CALLERS or each.scenario in plan.LIVE
    ]
    with Fleet(tmp_path, started=STARTED) as fleet, running_on(LOAD_CORE):
        blocks = fleet.blocks(comparisons)
        results = rounds.run(blocks, 1, 0.02, lambda _text: None)
    report = Report(results=results, settings={})
    report.write(tmp_path / "bench.json")
    report.print(Console(quiet=True))

    assert not results.failures()
    assert not results.mismatches()
    assert all(reading.tally.jobs for found in results.readings.values() for reading in found)
    written = json.loads((tmp_path / "bench.json").read_text())
    assert {each["verdict"] for each in written["targets"] if "/32:" in each["name"]} <= {
        "REACHED",
        "MISSED",
    }
    # The replies of the echo server must be as large as those of the service.
    sizes = {
        each["measured"]: each["reply_bytes"]
        for each in written["measurements"]
        if each["block"] == plan.block_name("update", CALLERS)
    }
    for subject in (plan.POSTGRES, plan.SQLITE):
        assert abs(sizes[subject] - sizes[plan.ECHO]) < 0.1 * sizes[plan.ECHO]
