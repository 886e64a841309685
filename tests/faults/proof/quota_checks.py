"""Checks of the quota: it is never exceeded, and no owner below it is refused."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from milepost.domain.transitions import ACTIVE, Transition
from tests.faults.proof.history import Call, History, Outcome
from tests.faults.proof.tables import Tables, Timeline
from tests.faults.proof.violations import Kind, Violation


@dataclass(frozen=True, slots=True)
class Span:
    """The time in which an operation was active, as far as clients know."""

    possible: tuple[float, float]
    """It was not active before, nor after."""
    certain: tuple[float, float]
    """It was active at least in this time; empty if the second is before the first."""


def check_quotas(
    history: History, tables: Tables, quotas: Mapping[str, int]
) -> Iterator[Violation]:
    """Look for refusals below the quota, for more active operations, and for a wrong reservation.

    Args:
        history: of the run.
        tables: the final ones.
        quotas: the quota of each owner that has one of its own.
    """
    spans = _spans(history, tables, quotas)
    for call in history.calls:
        quota = quotas.get(call.client)
        if quota is None or call.transition is not Transition.CREATE:
            continue
        own = spans.get(call.client, [])
        if call.reason == "QUOTA_EXCEEDED":
            yield from _refused_below(call, own, quota)
        elif call.outcome is Outcome.DONE:
            yield from _beyond(call, own, quota)
    yield from _reservations(tables)


def _refused_below(call: Call, own: Sequence[Span], quota: int) -> Iterator[Violation]:
    active = sum(s.possible[0] <= call.end and s.possible[1] >= call.begin for s in own)
    if active < quota:
        yield Violation(Kind.QUOTA, f"{call.client} was refused with at most {active} of {quota}")


def _beyond(call: Call, own: Sequence[Span], quota: int) -> Iterator[Violation]:
    active = sum(s.certain[0] <= call.end <= s.certain[1] for s in own)
    if active > quota:
        yield Violation(Kind.QUOTA, f"{call.client} has {active} active operations of {quota}")


def _reservations(tables: Tables) -> Iterator[Violation]:
    active: dict[str, int] = defaultdict(int)
    for timeline in tables.timelines.values():
        if timeline.row is not None and timeline.row["status"] in ACTIVE:
            active[timeline.row["owner"]] += 1
    for owner, count in active.items():
        if tables.reserved.get(owner, 0) < count:
            reserved = tables.reserved.get(owner, 0)
            yield Violation(Kind.QUOTA, f"{owner} has {count} active, but {reserved} reserved")


def _spans(
    history: History, tables: Tables, quotas: Mapping[str, int]
) -> Mapping[str, Sequence[Span]]:
    tries: dict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.request_id is not None:
            tries[call.client, call.request_id].append(call)
    found: dict[str, list[Span]] = defaultdict(list)
    for timeline in tables.timelines.values():
        if timeline.events and timeline.events[0]["owner"] in quotas:
            found[timeline.events[0]["owner"]].append(_span(timeline, tries))
    return found


def _span(timeline: Timeline, tries: Mapping[tuple[str, str], Sequence[Call]]) -> Span:
    creates = _tries(timeline.events[0], tries)
    ends = _tries(timeline.end, tries)
    done = [call.end for call in ends if call.outcome is Outcome.DONE]
    return Span(
        possible=(
            min((call.begin for call in creates), default=-math.inf),
            max(done, default=math.inf),
        ),
        certain=(
            min((c.end for c in creates if c.outcome is Outcome.DONE), default=math.inf),
            math.inf if timeline.end is None else min((c.begin for c in ends), default=-math.inf),
        ),
    )


def _tries(
    event: Mapping[str, object] | None, tries: Mapping[tuple[str, str], Sequence[Call]]
) -> Sequence[Call]:
    if event is None or event["request_id"] is None:
        return []
    return tries.get((str(event["actor"]), str(event["request_id"])), [])
