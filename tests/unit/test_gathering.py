"""Gathering: unary calls that arrive together go on together, and nobody waits for nobody."""

import asyncio
from typing import Any

import pytest

from milepost.rpc.interceptors import gathering
from milepost.rpc.interceptors.chain import Call
from milepost.rpc.interceptors.gathering import (
    COUNTED_EVERY,
    ENOUGH,
    LARGEST,
    PATIENT_TURNS,
    Gathering,
)

GET = Call("milepost.v1.OperationService/GetOperation", {})
QUEUE_TIMEOUT_S = 10


class House:
    """What is inside of the link: it notes who came in."""

    def __init__(self):
        self.entered = []
        self.left_after = []
        """How many had come in when each left."""
        self._let = asyncio.Event()
        self._let.set()
        self._link = Gathering()

    def hold(self):
        """Nobody leaves any more."""
        self._let.clear()

    def let(self):
        """Whoever is inside may leave."""
        self._let.set()

    def arrive(self, name=None, call=GET):
        """A call that arrives now."""

        async def call_next(_call, request, _context):
            self.entered.append(request)
            await self._let.wait()
            return request

        async def visit():
            context: Any = None  # this link does not ask it
            answer = await self._link.intercept(call_next, call, name, context)
            self.left_after.append(len(self.entered))
            return answer

        return asyncio.create_task(visit())

    async def turns(self, number=1):
        """So many turns of the loop go by."""
        for _ in range(number):
            await asyncio.sleep(0)

    async def crowd(self, number):
        """So many calls were here together."""
        self.hold()
        calls = [self.arrive() for _ in range(number)]
        await self.turns(PATIENT_TURNS * 3)
        self.let()
        await asyncio.wait_for(asyncio.gather(*calls), QUEUE_TIMEOUT_S)
        self.entered.clear()


@pytest.fixture
async def house():
    """An empty house."""
    return House()


async def test_lone_call_goes_on_at_once(house):
    """Whoever is alone waits for nobody, not even for a turn of the loop of its own."""
    for number in range(COUNTED_EVERY * 3):
        call = house.arrive(number)
        await house.turns()
        assert house.entered[number:] == [number]
        assert await call == number


async def test_calls_of_a_few_turns_go_on_together(house):
    """What arrives a few turns apart waits for each other, and then goes on in one go."""
    await house.crowd(4)
    calls = []
    for name in "abcd":
        assert not house.entered
        calls.append(house.arrive(name))
        await house.turns(3)
    assert len(house.entered) == 4
    assert await asyncio.gather(*calls) == list("abcd")
    assert house.left_after[-4:] == [4] * 4  # the answers are made first, then sent


async def test_group_does_not_wait_for_those_who_do_not_come(house):
    """A group is complete after some turns without another call."""
    await house.crowd(4)
    calls = [house.arrive("a"), house.arrive("b")]
    await house.turns(PATIENT_TURNS + 3)
    assert len(house.entered) == 2
    await asyncio.gather(*calls)


@pytest.mark.parametrize(
    ("callers", "size"),
    [(2 * ENOUGH, ENOUGH), (6 * ENOUGH, 3 * ENOUGH), (4 * LARGEST, LARGEST)],
)
async def test_crowd_goes_on_by_halves(house, callers, size):
    """While one half of a crowd is at work, the other half is a group by itself; both are bound."""
    await house.crowd(callers)
    house.hold()
    first = [house.arrive() for _ in range(size)]
    await house.turns(2)
    assert len(house.entered) == size
    second = [house.arrive() for _ in range(size)]
    await house.turns(2)
    assert len(house.entered) == 2 * size
    house.let()
    await asyncio.gather(*first, *second)


async def test_crowd_that_left_is_forgotten(house):
    """A few that remain of a crowd are a group of their own again, without waiting."""
    await house.crowd(8 * ENOUGH)
    for _ in range(COUNTED_EVERY + 2):
        await asyncio.wait_for(asyncio.gather(house.arrive(), house.arrive()), QUEUE_TIMEOUT_S)
    house.entered.clear()
    calls = [house.arrive(), house.arrive()]
    await house.turns(2)
    assert len(house.entered) == 2
    await asyncio.gather(*calls)


async def test_crowd_outside_is_counted(house, monkeypatch):
    """Now and then a group grows until nobody comes: so calls outside the door are counted."""
    await house.crowd(2)
    monkeypatch.setattr(gathering, "COUNTED_EVERY", 0)  # the next group is one of those
    calls = []
    for _ in range(4 * ENOUGH):  # one call a turn, as gRPC hands them over
        calls.append(house.arrive())
        await house.turns()
    assert not house.entered
    await asyncio.wait_for(asyncio.gather(*calls), QUEUE_TIMEOUT_S)
    monkeypatch.undo()
    house.entered.clear()
    calls = [house.arrive() for _ in range(2 * ENOUGH)]
    await house.turns(2)
    assert len(house.entered) == 2 * ENOUGH
    await asyncio.gather(*calls)


async def test_given_up_call_takes_nobody_along(house):
    """A call that is cancelled while it waits leaves the group, which goes on."""
    await house.crowd(4)
    calls = [house.arrive(name) for name in "abc"]
    await house.turns()
    calls[1].cancel()
    answers = await asyncio.wait_for(
        asyncio.gather(*calls, return_exceptions=True), QUEUE_TIMEOUT_S
    )
    assert [answers[0], answers[2]] == ["a", "c"]
    assert isinstance(answers[1], asyncio.CancelledError)
    assert house.entered == ["a", "c"]


@pytest.mark.parametrize(
    "call",
    [
        Call("milepost.v1.WorkerService/StreamProgress", {}, streams=True),
        Call("milepost.v1.WorkerService/ClaimOperations", {}),
        Call("milepost.v1.OperationService/GetOperation", {"prefer": "wait=10"}),
    ],
)
async def test_calls_that_may_last_are_no_company(house, call):
    """A stream, or a call that waits for something to happen, belongs to no group."""
    house.hold()
    calls = [house.arrive(call=call) for _ in range(4)]
    await house.turns()
    assert len(house.entered) == 4
    calls.append(house.arrive())
    await house.turns()
    assert len(house.entered) == 5
    house.let()
    await asyncio.gather(*calls)
