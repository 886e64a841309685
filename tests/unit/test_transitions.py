"""The transition table, values derived from it, and texts that repeat it."""

import dataclasses
import re
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from milepost.domain.errors import (
    CancellationNotRequested,
    IllegalTransition,
    ProgressDecrease,
    RevisionMismatch,
    StaleAttempt,
)
from milepost.domain.operation import Operation, Status, new_operation_id
from milepost.domain.transitions import (
    ACTIVE,
    DELETABLE,
    PROGRESS_TOLERANCE,
    TABLE,
    TERMINAL,
    Transition,
    is_decrease,
    refusal,
)
from milepost.gen.milepost.v1 import operation_pb2
from milepost.storage.tables import operations
from tests import factories

FIELDS = {field.name for field in dataclasses.fields(Operation)}
PROTOS = Path(__file__).resolve().parents[2] / "protos" / "milepost" / "v1"

# The sources and the target of each transition in the specification. Written out, so that the test
# shares no derivation with the code.
SPECIFIED = {
    "create": ("", "PENDING"),
    "start": ("PENDING", "PROCESSING"),
    "claim": ("PENDING", "PROCESSING"),
    "progress": ("PENDING PROCESSING", "PROCESSING"),
    "complete": ("PROCESSING", "COMPLETED"),
    "fail": ("PENDING PROCESSING", "FAILED"),
    "retry": ("PROCESSING", "PENDING"),
    "request_cancel": ("PROCESSING", "PROCESSING"),
    "acknowledge": ("PROCESSING", "CANCELLED"),
    "cancel": ("PENDING PROCESSING", "CANCELLED"),
    "release": ("PROCESSING", "PENDING"),
    "abandon": ("PROCESSING", "FAILED"),
    "time_out": ("PENDING", "FAILED"),
    "expire": ("PROCESSING", "FAILED"),
    "purge": ("PENDING COMPLETED FAILED CANCELLED", None),
}


def found(status=Status.PROCESSING, **overrides):
    """Return an operation whose transition was refused."""
    row = factories.row(status, revision=7, attempt=2, progress=0.5)
    fields: dict[str, Any] = {name: row.get(name) for name in FIELDS}
    return Operation(**fields | {"status": status, "errors": ()} | overrides)


def test_table_is_the_specified_one():
    """The table of the code is the table of the specification, transition by transition."""
    assert {
        transition.value: (rule.sources, rule.target) for transition, rule in TABLE.items()
    } == {
        transition: (frozenset(Status(name) for name in sources.split()), target and Status(target))
        for transition, (sources, target) in SPECIFIED.items()
    }
    assert list(TABLE) == list(Transition)


def test_active_and_terminal():
    """Pending and processing are active, and the other three statuses are terminal."""
    assert {Status.PENDING, Status.PROCESSING} == ACTIVE
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} == TERMINAL


def test_nothing_leaves_a_terminal_status():
    """The only transition from a terminal status is the purge."""
    assert {transition for transition, rule in TABLE.items() if rule.sources & TERMINAL} == {
        Transition.PURGE
    }


def test_only_terminal_operations_are_deletable():
    """A call deletes only terminal operations."""
    assert DELETABLE == TERMINAL
    assert factories.change(Transition.PURGE, new_operation_id()).sources == DELETABLE


@pytest.mark.parametrize("transition", Transition)
def test_transition_is_recorded_or_not(transition):
    """From each of its sources, a transition either records an event or keeps the status."""
    rule = TABLE[transition]
    assert rule.recorded | rule.unrecorded == rule.sources
    assert not rule.recorded & rule.unrecorded
    assert rule.unrecorded <= {rule.target}


def test_only_progress_is_not_recorded():
    """Progress is the only transition without an event, and only while it keeps the status."""
    assert {transition for transition, rule in TABLE.items() if rule.unrecorded} == {
        Transition.PROGRESS
    }


def test_every_status_is_a_target():
    """Every status is entered by a transition."""
    assert {rule.target for rule in TABLE.values()} - {None} == set(Status)


# --- reasons of refusals ---

STALE_REVISION = {"expected_revision": 6}
STALE_ATTEMPT = {"attempt": 1}
DECREASE = {"progress": 0.1}


@pytest.mark.parametrize(
    ("transition", "status", "wrong", "reason"),
    [
        (Transition.COMPLETE, Status.FAILED, STALE_REVISION | STALE_ATTEMPT, RevisionMismatch),
        (Transition.COMPLETE, Status.FAILED, STALE_ATTEMPT, StaleAttempt),
        (Transition.PROGRESS, Status.FAILED, DECREASE, IllegalTransition),
        (Transition.PROGRESS, Status.PROCESSING, STALE_REVISION | DECREASE, RevisionMismatch),
        (Transition.PROGRESS, Status.PROCESSING, STALE_ATTEMPT | DECREASE, StaleAttempt),
        (Transition.PROGRESS, Status.PROCESSING, DECREASE, ProgressDecrease),
    ],
)
def test_order_of_reasons(transition, status, wrong, reason):
    """The first of several reasons is reported: revision, attempt, status, decrease."""
    change = factories.change(transition, new_operation_id(), **wrong)
    assert type(refusal(change, found(status))) is reason


def test_reasons_name_both_sides():
    """Every reason has the requested and the found value."""
    operation = found(Status.COMPLETED)

    def facts(transition, operation=operation, **wrong):
        reason = refusal(factories.change(transition, operation.id, **wrong), operation)
        assert reason is not None
        return reason.facts

    assert facts(Transition.FAIL, **STALE_REVISION) == {"expected": "6", "actual": "7"}
    assert facts(Transition.FAIL, **STALE_ATTEMPT) == {"expected": "1", "actual": "2"}
    assert facts(Transition.FAIL) == {
        "transition": "fail", "status": "COMPLETED", "allowed": "PENDING,PROCESSING",
    }  # fmt: skip
    decrease = facts(Transition.PROGRESS, found(), **DECREASE)
    assert decrease == {"current": "0.5", "requested": "0.1"}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("transition", Transition)
def test_refusal_follows_the_table(transition, status):
    """Without a stale token a transition is refused exactly where the table does not allow it."""
    change = factories.change(transition, new_operation_id())
    reason = refusal(change, found(status, cancel_request_time=factories.LONG_AGO))
    assert (reason is None) is (status in change.sources)


def test_acknowledgement_needs_a_requested_cancel():
    """A worker acknowledges only a cancel that was requested."""
    change = factories.change(Transition.ACKNOWLEDGE, new_operation_id())
    assert type(refusal(change, found())) is CancellationNotRequested


def test_tokens_that_agree_refuse_nothing():
    """A matching revision and a matching attempt refuse nothing."""
    change = factories.change(Transition.FAIL, new_operation_id(), expected_revision=7, attempt=2)
    assert refusal(change, found()) is None


@pytest.mark.parametrize(
    ("requested", "current", "decrease"),
    [
        (0.4, 0.5, True),
        (0.5, 0.5, False),
        (0.4995, 0.5, False),
        (0.5 - PROGRESS_TOLERANCE, 0.5, False),
        (0.4989, 0.5, True),
        (0.6, 0.5, False),
        (0.0, None, False),
        (None, 0.5, False),
        (None, None, False),
    ],
)
def test_decrease(requested, current, decrease):
    """Progress decreases when it is lower by more than 0.001."""
    assert is_decrease(requested, current) is decrease
    assert PROGRESS_TOLERANCE == 0.001


# --- texts that repeat the table ---


class Comment(NamedTuple):
    """The transition in the comment of one RPC."""

    method: str
    transition: str
    allowed: frozenset[str]
    target: str | None


def comments():
    """Return the comments of all RPCs with a transition."""
    for path in sorted(PROTOS.glob("*.proto")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"((?:^ *//.*\n)+) *rpc (\w+)\(", text, re.MULTILINE):
            for block in re.split(r"(?=// Transition: )", match[1])[1:]:
                lines = dict(
                    re.findall(
                        r"// (Transition|Allowed while|Enters): (.*)\.$", block, re.MULTILINE
                    )
                )
                allowed = lines.get("Allowed while", "")
                yield Comment(
                    method=match[2],
                    transition=lines["Transition"],
                    allowed=frozenset(allowed.split(", ") if allowed else ()),
                    target=lines.get("Enters"),
                )


COMMENTS = list(comments())


@pytest.mark.parametrize(
    "comment", COMMENTS, ids=lambda comment: f"{comment.method}-{comment.transition}"
)
def test_comments_of_the_rpcs_agree_with_the_table(comment):
    """The comment of an RPC names its transition with the sources and the target of the table."""
    transition = Transition(comment.transition)
    allowed = DELETABLE if transition is Transition.PURGE else TABLE[transition].sources
    assert comment.allowed == {status.value for status in allowed}
    assert comment.target == TABLE[transition].target


def test_every_transition_of_a_call_is_documented():
    """Every transition has an RPC, except those of the sweeper."""
    assert {comment.transition for comment in COMMENTS} == {
        transition.value for transition, rule in TABLE.items() if rule.by != {"sweeper"}
    }


def test_comments_of_the_statuses_agree_with_the_table():
    """Each status of the API names the transitions into it, and those allowed in it."""
    text = (PROTOS / "operation.proto").read_text(encoding="utf-8")
    for status in Status:
        comment = re.search(rf"((?: *//.*\n)+) *OPERATION_STATUS_{status} =", text)
        assert comment is not None
        prose = re.sub(r"\s*//\s*", " ", comment[1])
        entered = re.search(r"Entered by: ([a-z_, ]+)\.", prose)
        transitions = re.search(r"Transitions from here: ([a-z_, ]+)\.", prose)
        assert entered is not None
        assert transitions is not None
        assert set(entered[1].split(", ")) == {m for m, r in TABLE.items() if r.target == status}
        assert set(transitions[1].split(", ")) == {
            m for m, r in TABLE.items() if status in r.sources
        }


def test_one_set_of_statuses():
    """The API, the domain and the CHECK of the table know the same statuses."""
    api = set(operation_pb2.OperationStatus.keys())
    assert api == {f"OPERATION_STATUS_{name}" for name in ("UNSPECIFIED", *Status)}
    (check,) = (
        constraint
        for constraint in operations.constraints
        if isinstance(constraint, sa.CheckConstraint)
        and constraint.name == "operations_status_check"
    )
    assert set(re.findall(r"'(\w+)'", str(check.sqltext))) == set(Status)


def test_names_are_values():
    """The name of a status or a transition is its stored value."""
    assert all(status.name == status.value for status in Status)
    assert all(transition.name.lower() == transition.value for transition in Transition)


def test_a_life_is_not_shorter_than_its_ttl():
    """The default row of the tests is valid: its lifetime is not shorter than its TTL."""
    operation = found(Status.COMPLETED)
    assert operation.expire_time - operation.create_time > timedelta(0)
