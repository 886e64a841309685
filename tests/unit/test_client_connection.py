"""The connection of a client: opened and closed, in one process and one event loop."""

import asyncio
import subprocess
import sys
from typing import Final

import pytest

from milepost_client import Milepost, SyncMilepost
from tests.unit.client_script import API_KEY, ID, got, serving

FORKED_S: Final = 20.0


async def test_client_is_opened_and_closed_without_a_block():
    """`open` and `close` do what the block does; the client may be opened again."""
    async with serving(got(), got()) as service:
        milepost = Milepost(service.address, api_key=API_KEY)
        for _ in range(2):
            assert await milepost.open() is milepost
            with pytest.raises(RuntimeError, match="open already"):
                await milepost.open()
            assert (await milepost.get(ID)).id == ID
            await milepost.close()
            await milepost.close()
        with pytest.raises(RuntimeError, match="not open"):
            await milepost.get(ID)


async def test_blocking_client_is_opened_and_closed_without_a_block():
    """The blocking client has the same `open` and `close`."""

    def use(address: str) -> None:
        milepost = SyncMilepost(address, api_key=API_KEY)
        for _ in range(2):
            assert milepost.open() is milepost
            assert milepost.get(ID).id == ID
            milepost.close()
            milepost.close()

    async with serving(got(), got()) as service:
        await asyncio.to_thread(use, service.address)


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:1", "https://example.com"])
def test_address_is_checked(address):
    """An empty address and a URL are refused before gRPC looks for a machine of that name."""
    with pytest.raises(ValueError, match="is not an address such as"):
        Milepost(address, api_key=API_KEY)


async def test_client_of_another_event_loop_is_refused():
    """A client is an error, not a hang, in an event loop other than its own."""

    async def use() -> None:
        await milepost.get(ID)

    async with serving() as service, Milepost(service.address, api_key=API_KEY) as milepost:
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, use())
    assert service.asked == []


SYNC_FORK = """
import os, sys
from milepost_client import SyncMilepost
milepost = SyncMilepost(sys.argv[1], api_key=sys.argv[2]).open()
milepost.get(sys.argv[3])
child = os.fork()
if child == 0:
    try:
        milepost.get(sys.argv[3])
    except RuntimeError as error:
        print(error, flush=True)
    milepost.close()
    os._exit(0)
os.waitpid(child, 0)
milepost.get(sys.argv[3])
milepost.close()
"""
ASYNC_FORK = """
import asyncio, os, sys
from milepost_client import Milepost
async def main():
    milepost = await Milepost(sys.argv[1], api_key=sys.argv[2]).open()
    await milepost.get(sys.argv[3])
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(in_child(milepost))
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    await milepost.get(sys.argv[3])
    await milepost.close()
async def in_child(milepost):
    try:
        await milepost.get(sys.argv[3])
    finally:
        await milepost.close()
asyncio.run(main())
"""


OPENED_IN_A_CHILD = """
import asyncio, os, sys
from milepost_client import Milepost, SyncMilepost
async def in_child():
    async with Milepost(sys.argv[1], api_key=sys.argv[2]) as milepost:
        await milepost.get(sys.argv[3])
def fork():
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    for use in (lambda: SyncMilepost(sys.argv[1], api_key=sys.argv[2]).open(),
                lambda: asyncio.run(in_child())):
        try:
            use()
        except RuntimeError as error:
            print(error, flush=True)
    os._exit(0)
with SyncMilepost(sys.argv[1], api_key=sys.argv[2]) as milepost:
    milepost.get(sys.argv[3])
    fork()
    milepost.get(sys.argv[3])
fork()
"""


async def test_client_is_not_opened_after_the_parent_used_one():
    """The forked process, in which gRPC would hang or crash, gets an error at the opening."""

    def run(address: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", OPENED_IN_A_CHILD, address, API_KEY, ID]
        return subprocess.run(command, capture_output=True, text=True, timeout=FORKED_S, check=True)

    async with serving(got(), got()) as service:
        done = await asyncio.to_thread(run, service.address)
    assert done.stdout.count("fork before the first client") == 4
    assert len(service.asked) == 2


@pytest.mark.parametrize("program", [SYNC_FORK, ASYNC_FORK], ids=["sync", "async"])
async def test_client_that_was_opened_before_a_fork_is_refused(program):
    """In a forked process the client of the parent is an error, not a hang; the parent goes on."""

    def run(address: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, address, API_KEY, ID]
        return subprocess.run(command, capture_output=True, text=True, timeout=FORKED_S, check=True)

    async with serving(got(), got()) as service:
        done = await asyncio.to_thread(run, service.address)
    assert "before a fork" in done.stdout
    assert len(service.asked) == 2
