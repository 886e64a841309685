"""What is put off to the end of a turn of the event loop happens there, and once."""

import asyncio

from milepost.telemetry.afterwards import Afterwards, EndOfTurn


def test_outside_of_a_loop_it_is_done_at_once():
    """Where there is no turn nothing waits for its end."""
    done: list[str] = []
    EndOfTurn(lambda: done.append("inside"), outside=lambda: done.append("outside")).plan()
    assert done == ["outside"]


async def test_it_is_done_once_a_turn():
    """However often it is planned in a turn; and again in the next one."""
    done: list[int] = []
    turn = EndOfTurn(lambda: done.append(len(done)), outside=done.clear)
    for number in (1, 2):
        turn.plan()
        turn.plan()
        assert len(done) == number - 1
        await asyncio.sleep(0)
        assert len(done) == number


def test_loop_that_ends_before_the_turn_does_not_hold_it_back():
    """A loop that was closed before it came to it leaves the next one to do it."""
    done: list[str] = []
    turn = EndOfTurn(lambda: done.append("inside"), outside=lambda: done.append("outside"))

    async def plan(seconds: float) -> None:
        turn.plan(seconds)
        await asyncio.sleep(0)

    asyncio.run(plan(60.0))
    assert done == []
    asyncio.run(plan(0.0))
    assert done == ["inside"]


async def test_tasks_are_done_in_their_order():
    """All that was asked for in a turn is done at its end, in that order."""
    done: list[int] = []
    afterwards = Afterwards()
    for number in range(3):
        afterwards.do(done.append, number)
    assert done == []
    await asyncio.sleep(0)
    assert done == [0, 1, 2]
