"""Checks of the order of answers: no read is older than an answer before it; watches are whole."""

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

from milepost.domain.transitions import TERMINAL, Transition
from tests.faults.proof.history import History, Outcome, View, Watched
from tests.faults.proof.tables import Tables, Timeline
from tests.faults.proof.violations import Kind, Violation


def check_reads(history: History, _tables: Tables) -> Iterator[Violation]:
    """Look for answers with a revision below that of an answer before the call began."""
    floors = {id_: _Floor(found) for id_, found in _revisions(history).items()}
    for call, view in history.observations():
        floor = floors[view.id].before(call.begin)
        if view.revision < floor:
            yield Violation(
                Kind.STALE,
                f"{call.method} by {call.client} ({call.via}) showed {view.id} at revision"
                f" {view.revision}, {floor} was known before",
            )
    yield from _reads_after_delete(history)


class _Floor:
    """The highest revision of one operation that was known at any time."""

    def __init__(self, found: Sequence[tuple[float, int]]) -> None:
        ordered = sorted(found)
        self._ends = [end for end, _ in ordered]
        self._highest = list(itertools.accumulate((revision for _, revision in ordered), max))

    def before(self, time: float) -> int:
        """Return the highest revision of the answers before a time."""
        number = bisect.bisect_left(self._ends, time)
        return self._highest[number - 1] if number else 0


def _revisions(history: History) -> dict[str, list[tuple[float, int]]]:
    found: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for call, view in history.observations():
        found[view.id].append((call.end, view.revision))
    return found


def _reads_after_delete(history: History) -> Iterator[Violation]:
    deleted = {
        call.operation_id: call.end
        for call in history.calls
        if call.transition is Transition.PURGE and call.outcome is Outcome.DONE
    }
    for call, view in history.observations():
        if call.begin > deleted.get(view.id, call.begin):
            yield Violation(Kind.STALE, f"{call.method} by {call.client} showed deleted {view.id}")


def check_watches(history: History, tables: Tables) -> Iterator[Violation]:
    """Look for watches that left a change out, or showed one twice."""
    for watch in history.watches:
        timeline = tables.timelines.get(watch.operation_id)
        if timeline is None:
            yield Violation(Kind.LOST, f"{watch.operation_id} was watched, and is not there")
            continue
        yield from _order(watch)
        yield from _gaps(watch, timeline)
        yield from (
            Violation(Kind.PHANTOM, f"a watch of {view.id} showed {view.revision} {view.status}")
            for view in watch.views
            if not _is_true(view, timeline)
        )


def _order(watch: Watched) -> Iterator[Violation]:
    revisions = [view.revision for view in watch.views]
    if any(later <= earlier for earlier, later in itertools.pairwise(revisions)):
        yield Violation(Kind.WATCH_REPEAT, f"{watch.operation_id}: {revisions}")


def _gaps(watch: Watched, timeline: Timeline) -> Iterator[Violation]:
    revisions = {view.revision for view in watch.views}
    changes = {event["revision"] for event in timeline.events if event["transition"] != "purge"}
    if watch.gone or not revisions:
        return
    missed = {each for each in changes if each > (watch.after or min(revisions))} - revisions
    if missed or watch.views[-1].status not in TERMINAL:
        seen = sorted(revisions)
        yield Violation(Kind.WATCH_GAP, f"{watch.operation_id}: {sorted(missed)} not in {seen}")


def _is_true(view: View, timeline: Timeline) -> bool:
    state = timeline.state_at(view.revision)
    return state is not None and (view.status, view.attempt) == (state.status, state.attempt)
