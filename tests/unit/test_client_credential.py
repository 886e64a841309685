"""The credential of each call: a key, or what a source returns."""

import asyncio

import grpc
import pytest

from milepost_client import Milepost, Unauthenticated, Unavailable
from tests.unit.client_script import ID, changed, got, serving


async def authorizations(source, *script):
    """Return the authorization of every call of two reads and a watch."""
    async with serving(*script) as service:
        async with Milepost(service.address, token=source, deadline=1) as milepost:
            await milepost.get(ID)
            await milepost.get(ID)
            _ = [operation async for operation in milepost.watch(ID)]
        return [asked.metadata["authorization"] for asked in service.asked]


async def test_source_is_asked_before_every_call():
    """A new token is used with the next call, also of a watch; the source may be a coroutine."""
    tokens = iter(["one", "two", "three"])

    async def source():
        return next(tokens)

    assert await authorizations(source, got(), got(), changed(2)) == [
        "Bearer one",
        "Bearer two",
        "Bearer three",
    ]


async def test_failed_source_is_asked_again_until_the_deadline():
    """A source that fails is as temporary as a service without an answer; then it is raised."""
    asked: list[None] = []

    def source():
        asked.append(None)
        raise OSError("no network")

    async with Milepost("127.0.0.1:1", token=source, deadline=0.3) as milepost:
        with pytest.raises(Unavailable, match="the token source failed") as refusal:
            await milepost.get(ID)
    assert len(asked) > 1
    assert isinstance(refusal.value.__cause__, OSError)
    assert refusal.value.code is grpc.StatusCode.UNAVAILABLE


async def test_deadline_bounds_a_source_that_does_not_answer():
    """No call outlives its deadline, nor does the first connection of a watch."""

    async def source():
        await asyncio.Event().wait()
        return "never"

    async with Milepost("127.0.0.1:1", token=source, deadline=0.2) as milepost:
        for call in (milepost.get(ID), anext(milepost.watch(ID))):
            with pytest.raises(Unavailable, match="the token source took too long"):
                await asyncio.wait_for(call, 10)


async def test_what_a_source_awaits_may_be_cancelled():
    """Calls that share a request for a token do not end as if they were cancelled themselves."""
    shared = asyncio.get_running_loop().create_future()
    shared.cancel()
    async with Milepost("127.0.0.1:1", token=lambda: shared, deadline=0.2) as milepost:
        with pytest.raises(Unavailable, match="the token source failed"):
            await milepost.get(ID)


async def test_call_that_waits_for_a_token_can_be_cancelled():
    """The cancel of the call is no failure of the source."""
    asked = asyncio.Event()

    async def source():
        asked.set()
        await asyncio.Event().wait()
        return "never"

    async with Milepost("127.0.0.1:1", token=source, deadline=10) as milepost:
        call = asyncio.ensure_future(milepost.get(ID))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.mark.parametrize("token", ["", "two words", "line\n", None, 7])
async def test_source_returns_one_word(token):
    """Anything else is refused before it is sent, and not shown."""
    async with Milepost("127.0.0.1:1", token=lambda: token) as milepost:
        with pytest.raises(Unauthenticated, match="one word of ASCII") as refusal:
            await milepost.get(ID)
    assert "two" not in str(refusal.value)


def test_key_and_source_exclude_each_other():
    """There is one credential."""
    with pytest.raises(ValueError, match="exclude each other"):
        Milepost("127.0.0.1:1", api_key="key", token=lambda: "token")
