"""The table of moves, what derives from it, and what repeats it."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from milepost.domain.errors import (
    IllegalMove,
    ProgressDecrease,
    RevisionMismatch,
    StaleAttempt,
)
from milepost.domain.lifecycle import (
    ACTIVE,
    DELETABLE,
    PROGRESS_TOLERANCE,
    TABLE,
    TERMINAL,
    Move,
    is_decrease,
    refusal,
)
from milepost.domain.operation import Operation, Status, new_operation_id
from milepost.gen.milepost.v1 import operation_pb2
from milepost.storage.tables import operations
from tests import factories

PROTOS = Path(__file__).resolve().parents[2] / "protos" / "milepost" / "v1"

# The table of the specification: from where, to where. Written out, so that no derivation of ours
# can bend it.
SPECIFIED = {
    "create": ("", "PENDING"),
    "start": ("PENDING", "PROCESSING"),
    "claim": ("PENDING", "PROCESSING"),
    "progress": ("PENDING PROCESSING", "PROCESSING"),
    "complete": ("PROCESSING", "COMPLETED"),
    "fail": ("PENDING PROCESSING", "FAILED"),
    "cancel": ("PENDING PROCESSING", "CANCELLED"),
    "release": ("PROCESSING", "PENDING"),
    "abandon": ("PROCESSING", "FAILED"),
    "expire": ("PROCESSING", "FAILED"),
    "forget": ("PENDING COMPLETED FAILED CANCELLED", None),
}


def found(status=Status.PROCESSING, **overrides):
    """An operation as it was found when a move did not happen."""
    row = factories.row(status, revision=7, attempt=2, progress=0.5)
    fields: dict[str, Any] = {name: row.get(name) for name in Operation._fields}
    return Operation(**fields | {"status": status, "errors": (), "result": None} | overrides)


def test_table_is_the_specified_one():
    """The table of the code is the table of the specification, move by move."""
    assert {move.value: (rule.leaves, rule.enters) for move, rule in TABLE.items()} == {
        move: (frozenset(Status(name) for name in leaves.split()), enters and Status(enters))
        for move, (leaves, enters) in SPECIFIED.items()
    }
    assert list(TABLE) == list(Move)


def test_active_and_terminal():
    """Pending and processing are active, the other three terminal, and none is both (B198)."""
    assert {Status.PENDING, Status.PROCESSING} == ACTIVE
    assert {Status.COMPLETED, Status.FAILED, Status.CANCELLED} == TERMINAL


def test_nothing_leaves_a_terminal_status():
    """The only move from a terminal status is to be forgotten (B122)."""
    assert {move for move, rule in TABLE.items() if rule.leaves & TERMINAL} == {Move.FORGET}


def test_only_terminal_operations_are_deletable():
    """By request only terminal operations are forgotten (B176)."""
    assert DELETABLE == TERMINAL
    assert factories.change(Move.FORGET, new_operation_id()).leaves == DELETABLE


@pytest.mark.parametrize("move", Move)
def test_changing_and_keeping(move):
    """From each status that it may leave, a move either changes the status or keeps it."""
    rule = TABLE[move]
    assert rule.changing | rule.keeping == rule.leaves
    assert not rule.changing & rule.keeping
    assert rule.keeping <= {rule.enters}


def test_only_progress_keeps_a_status():
    """Progress is the one move that leaves the status as it is, and then records no event."""
    assert {move for move, rule in TABLE.items() if rule.keeping} == {Move.PROGRESS}


def test_every_status_is_reached():
    """Every status is entered by a move."""
    assert {rule.enters for rule in TABLE.values()} - {None} == set(Status)


# --- why a move did not happen ---

STALE_REVISION = {"expected_revision": 6}
STALE_ATTEMPT = {"attempt": 1}
DECREASE = {"progress": 0.1}


@pytest.mark.parametrize(
    ("move", "status", "wrong", "reason"),
    [
        (Move.COMPLETE, Status.FAILED, STALE_REVISION | STALE_ATTEMPT, RevisionMismatch),
        (Move.COMPLETE, Status.FAILED, STALE_ATTEMPT, StaleAttempt),
        (Move.PROGRESS, Status.FAILED, DECREASE, IllegalMove),
        (Move.PROGRESS, Status.PROCESSING, STALE_REVISION | DECREASE, RevisionMismatch),
        (Move.PROGRESS, Status.PROCESSING, STALE_ATTEMPT | DECREASE, StaleAttempt),
        (Move.PROGRESS, Status.PROCESSING, DECREASE, ProgressDecrease),
    ],
)
def test_order_of_reasons(move, status, wrong, reason):
    """Of several reasons the first is named: revision, attempt, status, decrease."""
    change = factories.change(move, new_operation_id(), **wrong)
    assert type(refusal(change, found(status))) is reason


def test_reasons_name_both_sides():
    """Every reason names what was asked and what was found (B83, B123, B127)."""
    operation = found(Status.COMPLETED)

    def facts(move, operation=operation, **wrong):
        reason = refusal(factories.change(move, operation.id, **wrong), operation)
        assert reason is not None
        return reason.facts

    assert facts(Move.FAIL, **STALE_REVISION) == {"expected": "6", "actual": "7"}
    assert facts(Move.FAIL, **STALE_ATTEMPT) == {"expected": "1", "actual": "2"}
    assert facts(Move.FAIL) == {
        "move": "fail", "status": "COMPLETED", "allowed": "PENDING,PROCESSING",
    }  # fmt: skip
    decrease = facts(Move.PROGRESS, found(), **DECREASE)
    assert decrease == {"current": "0.5", "requested": "0.1"}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("move", Move)
def test_refusal_follows_the_table(move, status):
    """Without a stale token a move is refused exactly where the table does not allow it."""
    change = factories.change(move, new_operation_id())
    reason = refusal(change, found(status))
    assert (reason is None) is (status in change.leaves)


def test_tokens_that_agree_refuse_nothing():
    """The revision and the attempt that are found are no reason."""
    change = factories.change(Move.FAIL, new_operation_id(), expected_revision=7, attempt=2)
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
    """Progress goes back when it dips by more than 0.001 (B83, B84, B85)."""
    assert is_decrease(requested, current) is decrease
    assert PROGRESS_TOLERANCE == 0.001


# --- what repeats the table ---


class Comment(NamedTuple):
    """What the comment of one RPC says about its move."""

    method: str
    move: str
    allowed: frozenset[str]
    enters: str | None


def comments():
    """The comments of all RPCs that make a move."""
    for path in sorted(PROTOS.glob("*.proto")):
        text = path.read_text(encoding="utf-8")
        for match in re.finditer(r"((?:^ *//.*\n)+) *rpc (\w+)\(", text, re.MULTILINE):
            lines = dict(
                re.findall(r"// (Move|Allowed while|Enters): (.*)\.$", match[1], re.MULTILINE)
            )
            if lines:
                allowed = lines.get("Allowed while", "")
                yield Comment(
                    method=match[2],
                    move=lines["Move"],
                    allowed=frozenset(allowed.split(", ") if allowed else ()),
                    enters=lines.get("Enters"),
                )


COMMENTS = list(comments())


@pytest.mark.parametrize("comment", COMMENTS, ids=lambda comment: comment.method)
def test_comments_of_the_rpcs_say_what_the_table_says(comment):
    """Each RPC that makes a move names it, where it is allowed and where it leads."""
    move = Move(comment.move)
    allowed = DELETABLE if move is Move.FORGET else TABLE[move].leaves
    assert comment.allowed == {status.value for status in allowed}
    assert comment.enters == TABLE[move].enters


def test_every_move_by_request_is_documented():
    """Every move that is not the sweeper's has its RPC."""
    assert {comment.move for comment in COMMENTS} == {
        move.value for move, rule in TABLE.items() if rule.by != {"sweeper"}
    }


def test_comments_of_the_statuses_say_what_the_table_says():
    """Each status of the API names the moves that enter it, and those that are allowed in it."""
    text = (PROTOS / "operation.proto").read_text(encoding="utf-8")
    for status in Status:
        comment = re.search(rf"((?: *//.*\n)+) *OPERATION_STATUS_{status} =", text)
        assert comment is not None
        prose = re.sub(r"\s*//\s*", " ", comment[1])
        entered = re.search(r"Entered by: ([a-z, ]+)\.", prose)
        moves = re.search(r"Moves from here: ([a-z, ]+)\.", prose)
        assert entered is not None
        assert moves is not None
        assert set(entered[1].split(", ")) == {m for m, r in TABLE.items() if r.enters == status}
        assert set(moves[1].split(", ")) == {m for m, r in TABLE.items() if status in r.leaves}


def test_one_set_of_statuses():
    """The API, the domain and the CHECK of the table know the same statuses (B144, B246)."""
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
    """A status and a move are called what they are stored as."""
    assert all(status.name == status.value for status in Status)
    assert all(move.name.lower() == move.value for move in Move)


def test_a_life_is_not_shorter_than_its_ttl():
    """The row that the tests start from is legal: it ends after it began."""
    operation = found(Status.COMPLETED)
    assert operation.expire_time - operation.create_time > timedelta(0)
