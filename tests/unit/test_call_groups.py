"""Groups of concurrent unary calls: they go on together, and a single call never waits."""

import asyncio
from typing import Any

import pytest

from milepost.api import call_groups
from milepost.api.call_groups import (
    COUNT_INTERVAL,
    MAX_GROUP,
    MAX_QUIET_TURNS,
    MIN_GROUP,
    CallGroups,
)

TIMEOUT_S = 10


class StubCall:
    """The part of a call that the interceptor reads."""

    def __init__(self, *, waits: bool = False):
        self.waits = waits


GET = StubCall()


class Server:
    """The inside of the interceptor: it records the calls that are let on."""

    def __init__(self):
        self.entered = []
        self.left_after = []
        """The number of calls that had entered when each one left."""
        self._open = asyncio.Event()
        self._open.set()
        self._groups = CallGroups()

    def hold(self):
        """Keep every call inside."""
        self._open.clear()

    def release(self):
        """Let the calls inside leave."""
        self._open.set()

    def arrive(self, name=None, call: Any = GET):
        """Start a call now."""

        async def call_next(_call, request, _context):
            self.entered.append(request)
            await self._open.wait()
            return request

        async def run():
            context: Any = None  # the interceptor does not read it
            response = await self._groups.intercept(call_next, call, name, context)
            self.left_after.append(len(self.entered))
            return response

        return asyncio.create_task(run())

    async def turns(self, number=1):
        """Let the event loop take that many turns."""
        for _ in range(number):
            await asyncio.sleep(0)

    async def crowd(self, number):
        """Run that many concurrent calls to their end."""
        self.hold()
        calls = [self.arrive() for _ in range(number)]
        await self.turns(MAX_QUIET_TURNS * 3)
        self.release()
        await asyncio.wait_for(asyncio.gather(*calls), TIMEOUT_S)
        self.entered.clear()


@pytest.fixture
async def server():
    """A server without calls."""
    return Server()


async def test_single_call_goes_on_at_once(server):
    """A single call does not even wait for a turn of the event loop."""
    for number in range(COUNT_INTERVAL * 3):
        call = server.arrive(number)
        await server.turns()
        assert server.entered[number:] == [number]
        assert await call == number


async def test_calls_of_a_few_turns_go_on_together(server):
    """Calls that arrive some turns apart go on together, and are answered together."""
    await server.crowd(4)
    calls = []
    for name in "abcd":
        assert not server.entered
        calls.append(server.arrive(name))
        await server.turns(3)
    assert len(server.entered) == 4
    assert await asyncio.gather(*calls) == list("abcd")
    assert server.left_after[-4:] == [4] * 4


async def test_group_is_complete_after_quiet_turns(server):
    """A group goes on after some turns without another call."""
    await server.crowd(4)
    calls = [server.arrive("a"), server.arrive("b")]
    await server.turns(MAX_QUIET_TURNS + 3)
    assert len(server.entered) == 2
    await asyncio.gather(*calls)


@pytest.mark.parametrize(
    ("callers", "size"),
    [(2 * MIN_GROUP, MIN_GROUP), (6 * MIN_GROUP, 3 * MIN_GROUP), (4 * MAX_GROUP, MAX_GROUP)],
)
async def test_half_of_many_callers_is_a_group(server, callers, size):
    """With many callers a group is half of them, within the bounds of a group."""
    await server.crowd(callers)
    server.hold()
    first = [server.arrive() for _ in range(size)]
    await server.turns(2)
    assert len(server.entered) == size
    second = [server.arrive() for _ in range(size)]
    await server.turns(2)
    assert len(server.entered) == 2 * size
    server.release()
    await asyncio.gather(*first, *second)


async def test_number_of_callers_falls(server):
    """After many callers have left, the remaining few are a group without waiting."""
    await server.crowd(8 * MIN_GROUP)
    for _ in range(COUNT_INTERVAL + 2):
        await asyncio.wait_for(asyncio.gather(server.arrive(), server.arrive()), TIMEOUT_S)
    server.entered.clear()
    calls = [server.arrive(), server.arrive()]
    await server.turns(2)
    assert len(server.entered) == 2
    await asyncio.gather(*calls)


async def test_callers_outside_are_counted(server, monkeypatch):
    """A counting group grows until no call arrives, so that it counts all callers."""
    await server.crowd(2)
    monkeypatch.setattr(call_groups, "COUNT_INTERVAL", 0)  # the next group counts
    calls = []
    for _ in range(4 * MIN_GROUP):  # one call a turn, as gRPC hands them over
        calls.append(server.arrive())
        await server.turns()
    assert not server.entered
    await asyncio.wait_for(asyncio.gather(*calls), TIMEOUT_S)
    monkeypatch.undo()
    server.entered.clear()
    calls = [server.arrive() for _ in range(2 * MIN_GROUP)]
    await server.turns(2)
    assert len(server.entered) == 2 * MIN_GROUP
    await asyncio.gather(*calls)


async def test_cancelled_call_leaves_its_group(server):
    """A call that is cancelled while it waits leaves the group, which goes on."""
    await server.crowd(4)
    calls = [server.arrive(name) for name in "abc"]
    await server.turns()
    calls[1].cancel()
    results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), TIMEOUT_S)
    assert [results[0], results[2]] == ["a", "c"]
    assert isinstance(results[1], asyncio.CancelledError)
    assert server.entered == ["a", "c"]


async def test_waiting_calls_belong_to_no_group(server):
    """A stream, or a call that waits for a change, belongs to no group."""
    server.hold()
    calls = [server.arrive(call=StubCall(waits=True)) for _ in range(4)]
    await server.turns()
    assert len(server.entered) == 4
    calls.append(server.arrive())
    await server.turns()
    assert len(server.entered) == 5
    server.release()
    await asyncio.gather(*calls)
