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


async def test_source_that_hangs_is_bounded_by_the_deadline():
    """A source without an answer is unavailable, also for a watch, which has no deadline."""

    async def source() -> str:
        return await asyncio.Event().wait() and ""

    async with Milepost("127.0.0.1:1", token=source, deadline=0.1) as milepost, asyncio.timeout(5):
        with pytest.raises(Unavailable, match="the token source failed"):
            await milepost.get("op_0123456789abcdef01234567")
        with pytest.raises(Unavailable, match="the token source failed"):
            async for _ in milepost.watch("op_0123456789abcdef01234567"):
                pass


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
