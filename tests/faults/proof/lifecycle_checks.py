"""Checks of the final tables alone: every timeline is a path of the transition table."""

from collections.abc import Iterator

from milepost.domain.operation import Status
from milepost.domain.transitions import STARTING, TABLE, TERMINAL, Transition
from tests.faults.proof.history import History
from tests.faults.proof.tables import Row, Tables, Timeline, is_end
from tests.faults.proof.violations import Kind, Violation


def check_lifecycles(_history: History, tables: Tables) -> Iterator[Violation]:
    """Look for illegal transitions, second ends, and operations that did not end."""
    for timeline in tables.timelines.values():
        yield from _ends(timeline)
        yield from (Violation(Kind.ILLEGAL, text) for text in _illegal(timeline))
        if timeline.row is not None and timeline.row["status"] not in TERMINAL:
            yield Violation(Kind.STUCK, _named(timeline, "has not ended"))


def _ends(timeline: Timeline) -> Iterator[Violation]:
    ends = [event for event in timeline.events if is_end(event)]
    if len(ends) > 1:
        names = [event["transition"] for event in ends]
        yield Violation(Kind.TWO_ENDS, _named(timeline, f"ended by {names}"))


def _illegal(timeline: Timeline) -> Iterator[str]:
    status: Status | None = None
    revision = attempt = 0
    for event in timeline.events:
        transition = Transition(event["transition"])
        rule = TABLE[transition]
        attempt += transition in STARTING
        if not _may_follow(status, transition):
            yield _named(timeline, f"{transition} of {status}")
        if not _is_next(status, revision, event["revision"]):
            yield _named(timeline, f"{transition} made revision {event['revision']} of {revision}")
        if event["attempt"] != attempt:
            yield _named(timeline, f"{transition} in attempt {event['attempt']}, not {attempt}")
        status, revision = rule.target, event["revision"]
    yield from _wrong_row(timeline, timeline.row, status, revision, attempt)


def _may_follow(status: Status | None, transition: Transition) -> bool:
    if transition is Transition.CREATE:
        return status is None
    rule = TABLE[transition]
    return status in (rule.recorded if rule.target is not None else rule.sources)


def _is_next(status: Status | None, last: int, revision: int) -> bool:
    """Return whether a revision may follow: only progress is not recorded."""
    return revision == last + 1 or (status is Status.PROCESSING and revision > last)


def _wrong_row(
    timeline: Timeline, row: Row | None, status: Status | None, revision: int, attempt: int
) -> Iterator[str]:
    if row is None:
        if timeline.events and not timeline.is_removed:
            yield _named(timeline, "is gone without a purge")
        return
    if row["status"] != status:
        yield _named(timeline, f"is {row['status']}, but its last event made it {status}")
    if row["revision"] != revision and not _is_next(status, revision - 1, row["revision"]):
        yield _named(timeline, f"has revision {row['revision']} after {revision}")
    if row["attempt"] != attempt:
        yield _named(timeline, f"has attempt {row['attempt']}, not {attempt}")


def _named(timeline: Timeline, text: str) -> str:
    path = " ".join(f"{event['transition']}@{event['revision']}" for event in timeline.events)
    return f"{timeline.id} {text} ({path})"
