"""Tallies show what the library's own counters would."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from milepost.telemetry.tallies import Durations, Tally

BOUNDS = (0.001, 0.5, 1, 10)
CALLS = st.tuples(
    st.sampled_from(["Get", "Create"]),
    st.sampled_from(["OK", "NOT_FOUND"]),
    st.floats(0, 20) | st.sampled_from(BOUNDS),
)


def shown(registry):
    """What is shown, without when each metric began: tallies do not say."""
    lines = generate_latest(registry).decode().splitlines()
    return sorted(line for line in lines if "_created" not in line)


@given(st.lists(CALLS))
def test_durations_are_a_histogram(calls):
    """Every duration is in its bucket, the upper bound included, under its labels."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    durations = Durations("seconds", "How long", ["method", "code"], BOUNDS, ours)
    histogram = Histogram(
        "seconds", "How long", ["method", "code"], registry=theirs, buckets=BOUNDS
    )
    for method, code, seconds in calls:
        durations.observe(seconds, method, code)
        histogram.labels(method, code).observe(seconds)
    assert shown(ours) == shown(theirs)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 1000))))
def test_tally_is_a_counter(counted):
    """Every value is there from the beginning, with what was counted."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = Tally("things_total", "What was counted", "kind", "ab", ours)
    counter = Counter("things_total", "What was counted", ["kind"], registry=theirs)
    for kind in "ab":
        counter.labels(kind)
    for kind, number in counted:
        tally.add(kind, number)
        counter.labels(kind).inc(number)
    assert shown(ours) == shown(theirs)
