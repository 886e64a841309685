"""The blocking client: the asynchronous one, method by method, and nothing of its own."""

import asyncio
import inspect
import threading
from typing import assert_type

import pytest

from milepost_client import (
    Cancelled,
    Milepost,
    Operation,
    SyncMilepost,
    SyncWork,
    UndecodableAnswer,
    Work,
)
from milepost_client.convert import from_any
from milepost_client.gen.milepost.v1 import worker_service_pb2 as worker_pb
from tests.unit.client_script import (
    API_KEY,
    ID,
    UNDECODABLE,
    Never,
    got,
    illegal,
    operation,
    page,
    serving,
    started,
    unavailable,
)

COMPLETED = worker_pb.CompleteOperationResponse(operation=operation("COMPLETED", attempt=1))
FAILED = worker_pb.FailOperationResponse(operation=operation("FAILED", attempt=1))


def public(kind):
    """Return the public members of a class by name, inherited ones included."""
    return {name: member for name, member in inspect.getmembers(kind) if not name.startswith("_")}


async def blocking(address, use):
    """Run `use` with a blocking client, on a thread of its own as any program without a loop."""

    def run():
        with SyncMilepost(address, api_key=API_KEY) as milepost:
            return use(milepost)

    return await asyncio.to_thread(run)


@pytest.mark.parametrize(("plain", "sync"), [(Milepost, SyncMilepost), (Work, SyncWork)])
def test_every_method_has_its_blocking_form(plain, sync):
    """Each public method has exactly one blocking form, made of it, with the same signature."""
    assert public(plain).keys() == public(sync).keys()
    for name, member in public(plain).items():
        form = public(sync)[name]
        if isinstance(member, property):
            assert (form.fset is None) == (member.fset is None)
            assert form.__doc__ == member.__doc__
        elif name not in {"open", "close"}:  # these manage the thread too
            assert form.__name__ == name
            assert form.__wrapped__ is member
            assert inspect.signature(form) == inspect.signature(member)
            assert not inspect.iscoroutinefunction(form)


async def test_constructors_take_the_same():
    """Both clients are built of the same arguments, refused alike."""
    with pytest.raises(TypeError, match="unexpected keyword"):
        SyncMilepost("x:1", api_key=API_KEY, colour="red")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="API key"):
        SyncMilepost("x:1", api_key="")
    assert repr(SyncMilepost("x:1", api_key=API_KEY)) == "SyncMilepost('x:1')"


async def test_method_returns_when_it_is_done():
    """A blocking method returns what the asynchronous one returns, retries included."""

    def use(milepost: SyncMilepost) -> str:
        return assert_type(milepost.get(ID), Operation).id

    async with serving(unavailable(), got()) as service:
        assert await blocking(service.address, use) == ID
    assert len(service.asked) == 2


async def test_list_is_an_ordinary_iterator():
    """Listing blocks page by page, and may be left halfway."""

    def use(milepost: SyncMilepost) -> list[str]:
        assert next(milepost.list()).id == "a"
        return [found.id for found in milepost.list()]

    first = page("a", then="t1")
    async with serving(first, first, page("b", "c")) as service:
        assert await blocking(service.address, use) == ["a", "b", "c"]


async def test_block_completes_the_operation():
    """The work block is for an ordinary with statement, and completes the operation."""

    def use(milepost: SyncMilepost) -> None:
        with milepost.work(ID) as work:
            assert_type(work, SyncWork)
            work.progress(0.4, "halfway, nearly")
            work.result = {"frames": 7}
            assert (work.operation.id, work.is_open, work.result) == (ID, True, {"frames": 7})

    progressed = worker_pb.UpdateProgressResponse(operation=operation("PROCESSING", attempt=1))
    async with serving(started(), progressed, COMPLETED) as service:
        await blocking(service.address, use)
    assert service.methods == ["StartOperation", "UpdateProgress", "CompleteOperation"]
    assert from_any(service.requests[-1].result) == {"frames": 7}


@pytest.mark.parametrize("problem", [ZeroDivisionError("x"), KeyboardInterrupt(), StopIteration()])
async def test_block_fails_the_operation_with_its_exception(problem):
    """An exception of any kind fails the operation and leaves the block unchanged."""

    def use(milepost):
        with pytest.raises(type(problem)) as caught, milepost.work(ID):
            raise problem
        assert caught.value is problem

    async with serving(started(), FAILED) as service:
        await blocking(service.address, use)
    assert service.requests[-1].errors[0].code == type(problem).__name__


async def test_cancellation_is_raised_in_the_block():
    """When somebody has cancelled the operation, the next step of the block raises it."""

    def use(milepost):
        with pytest.raises(Cancelled), milepost.work(ID) as work:
            work.progress(0.5)

    async with serving(started(), illegal("progress", "CANCELLED")) as service:
        await blocking(service.address, use)
    assert len(service.asked) == 2


async def test_one_client_serves_many_threads():
    """Many threads may call one client at once; each gets its own answer."""

    def use(milepost):
        found = []
        threads = [
            threading.Thread(target=lambda: found.append(milepost.get(ID).revision))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    async with serving(*[got(revision=number) for number in range(1, 9)]) as service:
        assert sorted(await blocking(service.address, use)) == list(range(1, 9))


async def test_closing_ends_the_calls_of_other_threads():
    """No thread is left waiting for an answer of a client that was closed."""
    ended = threading.Event()

    def use(milepost):
        def wait():
            try:
                milepost.wait(ID)
            except BaseException:  # noqa: BLE001 - any end will do
                ended.set()

        threading.Thread(target=wait, daemon=True).start()
        assert asked.wait(5)

    async with serving(Never()) as service:
        asked = threading.Event()
        watcher = asyncio.create_task(_when_asked(service, asked))
        await blocking(service.address, use)
        await watcher
    assert await asyncio.to_thread(ended.wait, 5)


async def _when_asked(service, asked):
    while not service.asked:  # noqa: ASYNC110 - a service has no event for this
        await asyncio.sleep(0)
    asked.set()


async def test_client_works_only_while_open():
    """A client that is not open says how it is meant to be used; it leaves no thread behind."""

    def use():
        milepost = SyncMilepost("127.0.0.1:7450", api_key=API_KEY)
        with pytest.raises(RuntimeError, match="with statement"):
            milepost.get(ID)
        with milepost, pytest.raises(RuntimeError, match="open already"), milepost:
            pass
        with pytest.raises(RuntimeError, match="with statement"):
            milepost.get(ID)

    await asyncio.to_thread(use)
    assert "milepost-client" not in {thread.name for thread in threading.enumerate()}


async def test_undecodable_answer_is_an_error_of_the_blocking_client():
    """The blocking client raises an answer that cannot be decoded as the asynchronous one does."""

    def use(milepost):
        with pytest.raises(UndecodableAnswer):
            milepost.get(ID)
        return milepost.claim(["f"])

    claim = worker_pb.ClaimOperationsResponse()
    async with serving(UNDECODABLE, claim) as service:
        assert await blocking(service.address, use) == []
