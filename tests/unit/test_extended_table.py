"""More statuses and transitions in the table: derived places, and places to edit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("extended_table.py")
ENDS = ["CANCELLED", "COMPLETED", "FAILED"]


@pytest.fixture(scope="module")
def report():
    """The sets of statuses after ``pause``, ``resume`` and a cancel while paused are added."""
    run = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_sets_of_statuses_follow_the_table(report):
    """The new status is active, and neither terminal nor claimable."""
    assert report["active"] == ["PAUSED", "PENDING", "PROCESSING"]
    assert report["terminal"] == report["deletable"] == ENDS
    assert report["claimable"] == ["PENDING"]
    assert set(report["quota"]) >= set(report["active"])


def test_no_sweep_takes_the_new_status(report):
    """A sweep and its index use the statuses of the table, which do not include the new one."""
    assert report["due"] == {
        "expire": ["PROCESSING"],
        "cancel": ["PROCESSING"],
        "cancel_lost": ["PROCESSING"],
        "abandon": ["PROCESSING"],
        "release": ["PROCESSING"],
        "run_out": ["PROCESSING"],
        "retry": ["PROCESSING"],
        "time_out": ["PENDING"],
        "purge": [*ENDS, "PENDING"],
    }
    assert report["hidden when expired"] == [*ENDS, "PENDING"]
    assert report["indexes"] == {
        "operations_pending_idx": ["PENDING"],
        "operations_leased_idx": ["PROCESSING"],
        "operations_processing_expire_time_idx": ["PROCESSING"],
        "operations_next_attempt_time_idx": ["PENDING"],
        "operations_queue_expire_time_idx": ["PENDING"],
        "operations_run_expire_time_idx": ["PROCESSING"],
        "operations_cancel_expire_time_idx": ["PROCESSING"],
        "operations_unique_key_idx": ["PAUSED", "PENDING", "PROCESSING"],
        "operations_unknown_status_idx": [*ENDS, "PAUSED", "PENDING", "PROCESSING"],
    }


def test_events_follow_the_table(report):
    """The new event leads to the new status, and a resume does not begin an attempt."""
    assert report["after the event"] == "PAUSED"
    assert report["starting"] == ["claim", "progress", "start"]


def test_places_to_edit(report):
    """Only the effects of a transition, the API and rules of one status are not derived.

    Those rules are CHECK constraints: the one of all statuses derives from them, so that the
    test that compares migrations with the tables reports a missing migration.
    """
    assert report["without effects"] == ["pause", "resume"]  # storage/statements.py
    assert "OPERATION_STATUS_PAUSED" in report["number"]  # protos/milepost/v1/operation.proto
    assert report["checks"] == ["operations_status_check"]  # migrations/versions
