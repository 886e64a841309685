"""The bound of calls whose credential has not been good before."""

from milepost.access.unknown_callers import UnknownCallers

GOOD = "Bearer good"


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_unknown_callers_are_bounded_in_each_second():
    """In each second so many calls of unknown callers are admitted, with and without credential."""
    clock = Clock()
    unknown = UnknownCallers(lambda credential: credential == GOOD, per_second=3, clock=clock)
    for second in (1.0, 2.5, 3.9):
        clock.now = second
        admitted = [unknown.admit(credential) for credential in (None, "Bearer bad", b"\xff", "x")]
        assert admitted == [True, True, True, False]


def test_known_callers_are_admitted_always():
    """A known caller is admitted beside any number of unknown ones, and is not counted."""
    unknown = UnknownCallers(lambda credential: credential == GOOD, per_second=1, clock=Clock())
    assert [unknown.admit(GOOD) for _ in range(5)] == [True] * 5
    assert [unknown.admit(None), unknown.admit(None), unknown.admit(GOOD)] == [True, False, True]
