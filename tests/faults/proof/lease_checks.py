"""Checks of leases: they are as long as was asked, by the clock of the database alone."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from milepost.domain.transitions import Transition
from milepost.storage.creation import SWEEPER
from tests.faults.proof.history import Call, History, View
from tests.faults.proof.tables import Row, Tables
from tests.faults.proof.violations import Kind, Violation

EXACT: Final = timedelta(milliseconds=1)
"""Difference of two times of one statement after their way through a message."""
ENDS_OF_LEASES: Final = (Transition.RELEASE, Transition.ABANDON, Transition.CANCEL)

Leases = Mapping[tuple[str, int], float]
"""The seconds that the claim of each attempt asked for."""


def check_leases(history: History, tables: Tables) -> Iterator[Violation]:
    """Look for leases of another length, and for sweeps before the end of one."""
    leases = {
        (view.id, view.attempt): call.lease_s
        for call, view in history.observations()
        if call.transition is Transition.CLAIM and call.lease_s is not None
    }
    for call, view in history.observations():
        if problem := _wrong_length(call, view, leases):
            yield Violation(Kind.LEASE, f"{call.method} of {view.id} at {call.end:.3f}: {problem}")
    yield from _swept_early(history, tables)


def _wrong_length(call: Call, view: View, leases: Leases) -> str | None:
    """Return the problem of a new or renewed lease.

    The claim starts the attempt, and progress reports have their time, in the statement that sets
    the end of the lease.
    """
    lease_s = leases.get((view.id, view.attempt))
    begins = {Transition.CLAIM: view.start_time, Transition.PROGRESS: view.progress_time}
    begin = begins.get(call.transition) if call.transition else None
    if lease_s is None or begin is None or call.replayed or call.via == "stream":
        return None
    if view.lease_expire_time is None:
        return "it has no lease"
    length = view.lease_expire_time - begin
    if abs(length - timedelta(seconds=lease_s)) > EXACT:
        return f"its lease has {length} instead of {lease_s} s"
    return None


def _swept_early(history: History, tables: Tables) -> Iterator[Violation]:
    renewals: dict[tuple[str, int], list[tuple[int, datetime]]] = defaultdict(list)
    for _, view in history.observations():
        if view.lease_expire_time is not None:
            renewals[view.id, view.attempt].append((view.revision, view.lease_expire_time))
    for timeline in tables.timelines.values():
        for event in filter(_is_end_of_lease, timeline.events):
            known = renewals[timeline.id, event["attempt"]]
            ends = [end for revision, end in known if revision < event["revision"]]
            if ends and max(ends) > event["time"] + EXACT:
                yield Violation(
                    Kind.SWEPT, f"{timeline.id} at {event['time']}, acknowledged until {max(ends)}"
                )


def _is_end_of_lease(event: Row) -> bool:
    is_swept = event["actor"] == SWEEPER and event["transition"] in ENDS_OF_LEASES
    return is_swept and "lease" in (event["reason"] or "")
