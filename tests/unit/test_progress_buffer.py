"""The progress buffer: sequences of inputs, and the commands that follow from each."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from milepost.domain.errors import (
    IllegalTransition,
    OperationNotFound,
    ProgressDecrease,
    StaleAttempt,
    StoreUnavailable,
)
from milepost.domain.interruption import InterruptionKind, StatusSnapshot
from milepost.domain.operation import Operation, Status, new_operation_id
from milepost.domain.transitions import Transition
from milepost.tracking.progress_buffer import Commit, CommitAt, Count, ProgressBuffer, Signal
from milepost.tracking.progress_messages import (
    Acknowledgement,
    Interruption,
    ProgressUpdate,
    UpdateError,
)
from tests import factories

ID = new_operation_id()
INTERVAL_S = 1.0
ILLEGAL = IllegalTransition(
    transition=Transition.PROGRESS, status=Status.CANCELLED, allowed=(Status.PROCESSING,)
)
STALE = StaleAttempt(expected=1, actual=2)
MISSING = OperationNotFound(ID)
AWAY = StoreUnavailable()

Input = Callable[[ProgressBuffer], tuple[Any, ...]]


# --- inputs ---


def update(now: float, progress: float | None = None, **fields: Any) -> Input:
    """Return an update of the worker."""
    return lambda buffer: buffer.update(ProgressUpdate(ID, progress=progress, **fields), now)


def committed(now: float, revision: int) -> Input:
    """The running commit has led to this revision, at attempt 1."""
    stored = factories.row(Status.PROCESSING)
    row: dict[str, Any] = {
        field.name: stored.get(field.name) for field in dataclasses.fields(Operation)
    }
    row |= {"id": ID, "status": Status.PROCESSING, "errors": ()}
    row |= {"revision": revision, "attempt": 1, "lease_expire_time": None}
    return lambda buffer: buffer.committed(Operation(**row), now)


def failed(
    now: float, error: Exception, found: StatusSnapshot | None = None, attempt: int | None = None
) -> Input:
    """The running commit has ended with an error."""
    refused = ProgressUpdate(ID, attempt=attempt)
    return lambda buffer: buffer.failed(refused, error, found, now)


def timer(now: float) -> Input:
    """The time of a `CommitAt` is reached, or a terminal transition flushes."""
    return lambda buffer: buffer.commit_now(now)


def finish(now: float) -> Input:
    """The worker ends its stream."""
    return lambda buffer: buffer.finish(now)


def notified() -> Input:
    """A transition was published."""
    return lambda buffer: buffer.notified()


def status(now: float, found: StatusSnapshot | None) -> Input:
    """The status was polled."""
    return lambda buffer: buffer.status(found, now)


def snapshot(status: Status, revision: int, attempt: int = 1) -> StatusSnapshot:
    """Return a status of the operation."""
    return StatusSnapshot(id=ID, status=status, revision=revision, attempt=attempt, error_code=None)


# --- commands ---


def commit(progress: float | None = None, **fields: Any) -> Commit:
    """Commit this update."""
    return Commit(ProgressUpdate(ID, progress=progress, **fields))


def acknowledge(revision: int) -> tuple[Any, ...]:
    """Count and acknowledge a commit."""
    item = Acknowledgement(id=ID, revision=revision, attempt=1, lease_expire_time=None)
    return (Count.COMMITTED, item)


def refuse(error: Exception) -> UpdateError:
    """Refuse an update."""
    return UpdateError(id=ID, error=error)


def interrupt(kind: str, revision: int) -> Interruption:
    """Interrupt the worker."""
    return Interruption(id=ID, kind=InterruptionKind(kind), revision=revision)


KNOWN = [
    (update(100.0, 0.1), (commit(0.1),)),
    (notified(), ()),  # of the commit itself
    (committed(100.1, 2), acknowledge(2)),
]
"""The first update is committed; the next commit is due at 101."""
RUNNING = [*KNOWN, (update(102.0, 0.2), (commit(0.2),))]
"""A second commit runs."""
PENDING = [*KNOWN, (update(100.5, 0.2), (CommitAt(101.0),))]
"""An update waits for the end of the interval."""
NEXT_ATTEMPT = [
    *KNOWN,
    (update(102.0, 0.2, attempt=1), (commit(0.2, attempt=1),)),
    (update(102.1, 0.1, attempt=2), ()),
    (
        failed(102.2, STALE, snapshot(Status.PROCESSING, 4, attempt=2), attempt=1),
        (Count.REFUSED, interrupt("LEASE_LOST", 4), CommitAt(103.0)),
    ),
]
"""An update of the next attempt waits after one of the last attempt was refused."""

TABLE: dict[str, list[tuple[Input, tuple[Any, ...]]]] = {
    "the first update is committed at once": KNOWN,
    "an update after a quiet interval is committed at once": RUNNING,
    "updates within the interval are coalesced into one commit": [
        *PENDING,
        (update(100.6, 0.3, message="a"), (Count.COALESCED,)),
        (update(100.7), (Count.COALESCED,)),
        (timer(101.0), (commit(0.3, message="a"),)),
        (notified(), ()),
        (committed(101.1, 3), acknowledge(3)),
    ],
    "an update of another attempt replaces the pending one": [
        *PENDING,
        (update(100.6, 0.1, attempt=2), (Count.COALESCED,)),
        (timer(101.0), (commit(0.1, attempt=2),)),
    ],
    "a decrease is refused and the pending update kept": [
        *PENDING,
        (
            update(100.6, 0.15),
            (Count.REFUSED, refuse(ProgressDecrease(current=0.2, requested=0.15))),
        ),
        (update(100.7, 0.1995), (Count.COALESCED,)),
        (timer(101.0), (commit(0.2),)),
    ],
    "an update during a commit waits for the interval after it": [
        *RUNNING,
        (update(102.1, 0.3), ()),
        (update(102.2, 0.4), (Count.COALESCED,)),
        (timer(102.3), ()),
        (notified(), ()),
        (committed(102.4, 3), (*acknowledge(3), CommitAt(103.0))),
    ],
    "an update during a commit longer than the interval follows at once": [
        *RUNNING,
        (update(102.1, 0.3), ()),
        (committed(103.5, 3), (*acknowledge(3), commit(0.3))),
    ],
    "a flush commits the pending update before its time": [
        *PENDING,
        (timer(100.6), (commit(0.2),)),
        (timer(100.7), ()),
    ],
    "the end of the stream commits the pending update": [*PENDING, (finish(100.6), (commit(0.2),))],
    "the end of the stream commits the update behind the running commit": [
        *RUNNING,
        (update(102.1, 0.3), ()),
        (finish(102.2), ()),
        (committed(102.3, 3), (*acknowledge(3), commit(0.3))),
    ],
    "the end of the stream without a pending update does nothing": [*KNOWN, (finish(100.6), ())],
    "a notification causes a poll": [*KNOWN, (notified(), (Signal.POLL,))],
    "a notification of an unknown operation causes none": [(notified(), ())],
    "a second notification during a commit causes a poll after it": [
        *RUNNING,
        (notified(), ()),
        (notified(), ()),
        (committed(102.1, 3), (*acknowledge(3), Signal.POLL)),
    ],
    "a notification during a commit that fails causes a poll after it": [
        *RUNNING,
        (notified(), ()),
        (failed(102.1, AWAY), (Count.REFUSED, refuse(AWAY), Signal.POLL)),
    ],
    "a status that was read during a commit is polled again": [
        *RUNNING,
        (status(102.1, None), ()),
        (committed(102.2, 3), (*acknowledge(3), Signal.POLL)),
    ],
    "a poll before a commit that waits again comes first": [
        *RUNNING,
        (update(102.1, 0.3), ()),
        (status(102.1, None), ()),
        (committed(102.2, 3), (*acknowledge(3), Signal.POLL, CommitAt(103.0))),
    ],
    "an error of one update leaves the others alone": [
        *RUNNING,
        (failed(102.1, AWAY), (Count.REFUSED, refuse(AWAY))),
        (update(102.2, 0.3), (CommitAt(103.0),)),
    ],
    "an unknown operation is dropped after an error": [
        (update(100.0, 0.1), (commit(0.1),)),
        (failed(100.1, AWAY), (Count.REFUSED, refuse(AWAY), Signal.DROP)),
    ],
    "an unknown operation with a pending update is kept": [
        (update(100.0, 0.1), (commit(0.1),)),
        (update(100.1, 0.2), ()),
        (failed(100.2, AWAY), (Count.REFUSED, refuse(AWAY), CommitAt(101.0))),
    ],
    "a missing operation is dropped": [
        *RUNNING,
        (failed(102.1, MISSING), (Count.REFUSED, refuse(MISSING), Signal.DROP)),
        (notified(), ()),
    ],
    "a refusal behind which there is an interruption is answered by it": [
        *RUNNING,
        (
            failed(102.1, ILLEGAL, snapshot(Status.CANCELLED, 3)),
            (Count.REFUSED, interrupt("CANCELLED", 3), Signal.DROP),
        ),
    ],
    "a stale attempt is answered by an interruption": [
        *RUNNING,
        (
            failed(102.1, STALE, snapshot(Status.PROCESSING, 2), attempt=7),
            (Count.REFUSED, interrupt("LEASE_LOST", 2), Signal.DROP),
        ),
    ],
    "a refusal without an interruption is answered by the error": [
        *RUNNING,
        (
            failed(102.1, ILLEGAL, snapshot(Status.COMPLETED, 3)),
            (Count.REFUSED, refuse(ILLEGAL), Signal.DROP),
        ),
    ],
    "a refusal whose status cannot be read is answered by the error": [
        *RUNNING,
        (failed(102.1, STALE), (Count.REFUSED, refuse(STALE), Signal.DROP)),
    ],
    "an update of the next attempt is committed after a refusal of the last": [
        *NEXT_ATTEMPT,
        (timer(102.5), (commit(0.1, attempt=2),)),
    ],
    "a status that goes on does nothing": [
        *KNOWN,
        (status(101.0, snapshot(Status.PROCESSING, 2)), ()),
    ],
    "a status older than the last commit does nothing": [
        *KNOWN,
        (status(101.0, snapshot(Status.CANCELLED, 1)), ()),
    ],
    "a status of an unknown operation does nothing": [(status(101.0, None), ())],
    "a cancelled operation is interrupted and dropped": [
        *PENDING,
        (
            status(100.7, snapshot(Status.CANCELLED, 3)),
            (interrupt("CANCELLED", 3), Signal.DROP),
        ),
        (timer(101.0), ()),
        (status(101.0, snapshot(Status.CANCELLED, 3)), ()),
    ],
    "a released operation is interrupted and dropped": [
        *KNOWN,
        (status(101.0, snapshot(Status.PENDING, 3)), (interrupt("LEASE_LOST", 3), Signal.DROP)),
    ],
    "an operation that is gone is refused and dropped": [
        *KNOWN,
        (status(101.0, None), (refuse(MISSING), Signal.DROP)),
    ],
    "a completed operation is dropped without an item": [
        *KNOWN,
        (status(101.0, snapshot(Status.COMPLETED, 3)), (Signal.DROP,)),
    ],
    "an update that is too late is committed at once, to be refused": [
        *PENDING,
        (status(100.6, snapshot(Status.COMPLETED, 3)), (commit(0.2),)),
    ],
}


def comparable(commands: tuple[Any, ...]) -> list[Any]:
    """Return the commands with errors by their text, as exceptions compare by identity."""
    return [
        (command.id, type(command.error), str(command.error))
        if isinstance(command, UpdateError)
        else command
        for command in commands
    ]


@pytest.mark.parametrize("steps", TABLE.values(), ids=TABLE)
def test_commands_follow_from_inputs(steps):
    """Every input of a sequence returns exactly its commands."""
    buffer = ProgressBuffer(ID, interval=INTERVAL_S)
    for number, (send, commands) in enumerate(steps):
        assert comparable(send(buffer)) == comparable(commands), number


def after(steps: list[tuple[Input, tuple[Any, ...]]]) -> ProgressBuffer:
    """Return the buffer after these inputs."""
    buffer = ProgressBuffer(ID, interval=INTERVAL_S)
    for send, _ in steps:
        send(buffer)
    return buffer


@pytest.mark.parametrize(
    ("steps", "is_busy", "must_flush"),
    [
        ([], False, False),
        (KNOWN[:1], True, False),
        ([*KNOWN[:1], (update(100.1, 0.2), ())], True, False),
        (KNOWN, False, False),
        (RUNNING, True, False),
        (PENDING, True, True),
        (NEXT_ATTEMPT, True, True),
    ],
)
def test_terminal_transitions_wait_for_pending_updates(steps, is_busy, must_flush):
    """A pending update of a known operation is flushed; a running commit only makes it busy."""
    buffer = after(steps)
    assert (buffer.is_busy, buffer.must_flush) == (is_busy, must_flush)


def test_commits_and_polls_break_the_silence():
    """An operation is silent since its last commit or poll."""
    buffer = after(KNOWN)
    assert buffer.seen_time == 100.1
    buffer.status(snapshot(Status.PROCESSING, 2), 103.0)
    assert buffer.seen_time == 103.0


def test_closed_buffer_commits_nothing():
    """A buffer discards its pending update when its stream has ended."""
    buffer = after(PENDING)
    buffer.close()
    assert buffer.commit_now(101.0) == ()
    assert not buffer.is_busy
