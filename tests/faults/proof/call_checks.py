"""Checks of calls against the timelines: every answer is true, and every change was asked for."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from milepost.domain.operation import Status
from milepost.domain.transitions import (
    CLAIMABLE,
    DELETABLE,
    FALLBACK,
    PROGRESS_TOLERANCE,
    TABLE,
    Transition,
    fallback_sources,
)
from milepost.storage.creation import SWEEPER
from tests.faults.proof.history import DEFECTS, Call, History, Outcome, View
from tests.faults.proof.tables import Row, State, Tables, Timeline
from tests.faults.proof.violations import Kind, Violation


def check_answers(history: History, tables: Tables) -> Iterator[Violation]:
    """Compare every answer with the state that the operation had at its revision."""
    for call, view in history.observations():
        timeline = tables.timelines.get(view.id)
        state = timeline.state_at(view.revision) if timeline else None
        if timeline is None or view.revision > timeline.last_revision:
            yield Violation(Kind.LOST, f"{_text(call)} showed {_shown(view)}: {_last(timeline)}")
        elif state is None or not _matches(view, state):
            yield Violation(Kind.PHANTOM, f"{_text(call)} showed {_shown(view)}, it was {state}")
        elif call.transition is not None:
            yield from _change(call, view, timeline)


def _matches(view: View, state: State) -> bool:
    return view.status in (None, state.status) and view.attempt == state.attempt


def _change(call: Call, view: View, timeline: Timeline) -> Iterator[Violation]:
    """Compare an acknowledged change with its event."""
    if call.transition is Transition.CREATE and view.owner != call.client:
        yield Violation(Kind.OWNER, f"{_text(call)} showed {view.id} of {view.owner}")
        return
    if call.replayed:
        if not any(_is_of(call, event) for event in timeline.events) and not _is_progress(call):
            yield Violation(Kind.LOST, f"{_text(call)} was replayed without an event")
        return
    event = timeline.event_at(view.revision)
    if not (event is None and _is_progress(call)) and not _is_of(call, event):
        yield Violation(Kind.LOST, f"{_text(call)} made {_shown(view)}, but that is {event}")
    if call.attempt not in (None, view.attempt):
        yield Violation(Kind.ATTEMPT, f"{_text(call)} of attempt {call.attempt}: {_shown(view)}")
    yield from _content(call, view, timeline)


def _content(call: Call, view: View, timeline: Timeline) -> Iterator[Violation]:
    """Compare what a call has stored with the row."""
    row = timeline.row
    if row is None:
        return
    if call.result is not None and row["result_value"] != call.result:
        yield Violation(Kind.LOST, f"{_text(call)}: the result of {view.id} is another one")
    later = [event for event in timeline.events if event["revision"] > view.revision]
    is_left = any(TABLE[Transition(event["transition"])].target in CLAIMABLE for event in later)
    if call.progress is not None and not is_left and row["attempt"] == view.attempt:
        stored = row["progress"]
        if stored is None or stored < call.progress - PROGRESS_TOLERANCE:
            yield Violation(Kind.LOST, f"{_text(call)}: {view.id} has {stored}")


def _is_progress(call: Call) -> bool:
    return call.transition is Transition.PROGRESS


def _is_of(call: Call, event: Row | None) -> bool:
    """Return whether an event is that of a call, or of its fallback."""
    if event is None or call.transition is None:
        return False
    names = (call.transition, FALLBACK.get(call.transition))
    named = call.request_id is None or event["request_id"] == call.request_id
    return event["transition"] in names and event["actor"] == call.client and named


def check_requests(history: History, tables: Tables) -> Iterator[Violation]:
    """Look for changes that no caller asked for, that happened twice, or in spite of a refusal."""
    tries: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.request_id is not None:
            tries[call.client, call.request_id].append(call)
    made = Counter(
        (event["actor"], event["request_id"])
        for timeline in tables.timelines.values()
        for event in timeline.events
        if event["request_id"] is not None
    )
    for request, count in made.items():
        if request not in tries:
            yield Violation(Kind.UNASKED, f"{request}")
        elif all(call.outcome is Outcome.REFUSED for call in tries[request]):
            yield Violation(Kind.REFUSED, _text(tries[request][0]))
        if count > 1:
            yield Violation(Kind.REPEATED, f"{request} has {count} events")
    yield from _doubled(history)
    yield from _unasked(history, tables)


def _doubled(history: History) -> Iterator[Violation]:
    """Look for acknowledged changes that share a revision."""
    changes: dict[tuple[str, int], list[Call]] = defaultdict(list)
    for call, view in history.observations():
        if call.transition is not None and not call.replayed and call.via != "stream":
            changes[view.id, view.revision].append(call)
    for (operation_id, revision), calls in changes.items():
        if len(calls) > 1:
            names = [_text(call) for call in calls]
            yield Violation(Kind.REPEATED, f"revision {revision} of {operation_id}: {names}")


def _unasked(history: History, tables: Tables) -> Iterator[Violation]:
    """Look for events whose actor never made such a call."""
    asked = {(call.client, call.transition) for call in history.calls}
    for timeline in tables.timelines.values():
        for event in timeline.events:
            if event["actor"] == SWEEPER or event["reason"] is not None:
                continue
            transition = Transition(event["transition"])
            causes = {transition, *(one for one, other in FALLBACK.items() if other == transition)}
            if not any((event["actor"], cause) in asked for cause in causes):
                yield Violation(Kind.UNASKED, f"{transition} of {timeline.id}: {event['actor']}")


@dataclass(frozen=True, slots=True)
class Bounds:
    """The knowledge from one answer: the revision of an operation before and after its call."""

    begin: float
    end: float
    before: int
    """The highest revision that it can have had before the call."""
    after: int
    """The lowest revision that it can have had after the call."""


def check_refusals(history: History, tables: Tables) -> Iterator[Violation]:
    """Look for refusals that no state of the operation during the call explains."""
    bounds = _bounds(history)
    for call in history.calls:
        if call.reason in DEFECTS:
            yield Violation(Kind.DEFECT, f"{_text(call)} was answered {call.reason}")
        timeline = tables.timelines.get(call.operation_id or "")
        if call.outcome is not Outcome.REFUSED or timeline is None:
            continue
        if call.reason == "OPERATION_NOT_FOUND" and not timeline.is_removed:
            yield Violation(Kind.LOST, f"{_text(call)} was answered {call.reason}")
        if call.reason == "ILLEGAL_TRANSITION" and call.transition is not None:
            legal = _sources(call.transition)
            states = _possible_states(call, timeline, bounds[timeline.id])
            if all(state is not None and state.status in legal for state in states):
                yield Violation(Kind.UNJUST, f"{_text(call)} was answered {call.reason}")


def _possible_states(
    call: Call, timeline: Timeline, bounds: Sequence[Bounds]
) -> Sequence[State | None]:
    """Return the states that the operation may have had during a call."""
    first = max((each.after for each in bounds if each.end < call.begin), default=1)
    later = [each.before for each in bounds if each.begin > call.end]
    last = min(later, default=timeline.last_revision)
    return [timeline.state_at(revision) for revision in range(first, last + 1)]


def _sources(transition: Transition) -> frozenset[Status]:
    if transition is Transition.PURGE:
        return DELETABLE
    return TABLE[transition].sources | fallback_sources(transition)


def _bounds(history: History) -> dict[str, list[Bounds]]:
    found: dict[str, list[Bounds]] = defaultdict(list)
    for call, view in history.observations():
        is_change = call.transition is not None and not call.replayed and call.via != "stream"
        before = view.revision - is_change
        found[view.id].append(Bounds(call.begin, call.end, before, view.revision))
    return found


def _text(call: Call) -> str:
    return f"{call.method} by {call.client} ({call.via}, {call.request_id}) at {call.end:.3f}"


def _shown(view: View) -> str:
    return f"{view.id} {view.status} revision {view.revision} attempt {view.attempt}"


def _last(timeline: Timeline | None) -> str:
    return "there is no such operation" if timeline is None else f"last {timeline.last_revision}"
