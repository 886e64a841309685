"""The circuit breaker of receivers, and their concurrency limits."""

from datetime import timedelta

import pytest

from milepost.webhooks.circuit_breaker import MAX_FAILING, CircuitBreaker, Contact
from milepost.webhooks.concurrency import ConcurrencyLimits, ReceiverConcurrency
from milepost.webhooks.sender import Answer, Failure

HOST, ALICE, MALLORY = "a.example", "a.example alice", "a.example mallory"


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        """Return the time."""
        return self.now


@pytest.fixture
def clock():
    """A clock at 0."""
    return Clock()


@pytest.fixture
def breaker(clock):
    """A circuit breaker that opens after three failures."""
    return CircuitBreaker(clock, failure_threshold=3, open_s=60)


def fail(breaker, times, contact=Contact.UNREACHABLE, destination=MALLORY):
    """Record failures in a row."""
    return [breaker.record(HOST, destination, contact) for _ in range(times)]


def test_circuit_opens_after_consecutive_failures(breaker, clock):
    """Consecutive failures pause a host; after the pause it is on trial until an answer."""
    assert fail(breaker, 3) == [False, False, True]
    assert (breaker.paused(), breaker.on_trial()) == ({HOST}, set())
    clock.now = 61
    assert (breaker.paused(), breaker.on_trial()) == (set(), {HOST})
    assert fail(breaker, 1) == [True]
    clock.now = 200
    assert not breaker.record(HOST, MALLORY, Contact.ANSWERED)
    assert breaker.on_trial() == set()
    assert fail(breaker, 2) == [False, False]


def test_missing_answer_concerns_one_owner(breaker):
    """Missing answers pause a destination, not its host, and show that the host is reachable."""
    fail(breaker, 2)
    fail(breaker, 3, Contact.UNANSWERED)
    assert (breaker.paused(), breaker.on_trial()) == ({MALLORY}, set())
    breaker.record(HOST, ALICE, Contact.ANSWERED)
    assert breaker.paused() == {MALLORY}


def test_attempt_that_was_not_made_says_nothing(breaker):
    """An attempt that was refused before it was sent changes no count."""
    fail(breaker, 2)
    assert fail(breaker, 5, Contact.NONE) == [False] * 5
    assert breaker.on_trial() == {HOST}
    assert fail(breaker, 1) == [True]


def test_number_of_failing_receivers_is_bounded(clock):
    """Only the latest failing receivers are kept, however many there are."""
    breaker = CircuitBreaker(clock, failure_threshold=1)
    for n in range(MAX_FAILING + 10):
        breaker.record(f"h{n}", f"h{n} alice", Contact.UNREACHABLE)
    assert len(breaker.paused()) == MAX_FAILING


@pytest.mark.parametrize("status", [200, 302, 404, 410, 429, 500, 503])
def test_every_answer_is_contact(status):
    """An answer of any status means that the host works."""
    assert answer(status=status).contact is Contact.ANSWERED


@pytest.mark.parametrize("failure", Failure)
def test_contact_of_every_failure(failure):
    """Only failures to connect concern the host, only attempts that were made concern any."""
    unreachable = ("UNRESOLVABLE", "CONNECT_TIMEOUT", "NOT_CONNECTED", "CERTIFICATE", "TLS")
    unanswered = ("TIMEOUT", "CLOSED", "HEAD_TOO_LONG", "MALFORMED")
    expected = dict.fromkeys(unreachable, Contact.UNREACHABLE)
    expected |= dict.fromkeys(unanswered, Contact.UNANSWERED)
    assert answer(error=failure).contact is expected.get(failure.name, Contact.NONE)


def answer(status=None, error=None):
    """Return the outcome of an attempt."""
    return Answer(
        status=status, error=error, duration=timedelta(0), retry_after=None, refused=False
    )


def test_receiver_at_its_limit_is_not_claimed_for():
    """A receiver is full with as many claimed deliveries as allowed; others are not affected."""
    hosts = ReceiverConcurrency(2, 3)
    for key in ("a", "a", "b"):
        hosts.add(key)
    assert (hosts.full(), hosts.claimed()) == (set(), {"a", "b"})
    hosts.add("a")
    assert hosts.full() == {"a"}
    hosts.remove("a")
    assert hosts.full() == set()


def test_limits_of_owners_and_of_receivers_on_trial():
    """An owner leaves a slot of a host to others, and a quarter of all slots is for trials."""
    limits = ConcurrencyLimits(total=512, per_host=8)
    assert (limits.per_destination, limits.on_trial) == (7, 128)
    assert ConcurrencyLimits(total=1, per_host=1).per_destination == 1
    assert ConcurrencyLimits(total=1, per_host=1).on_trial == 1
