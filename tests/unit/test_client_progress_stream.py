"""The progress stream of the client, with a service that answers as a test says."""

import asyncio
import threading
from collections.abc import Awaitable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from itertools import pairwise

import grpc
import pytest
from google.protobuf import any_pb2

from milepost_client import Milepost, MilepostError, StaleAttempt
from milepost_client.execution import Execution
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.held_operation import HeldOperation
from milepost_client.progress_stream import ProgressStream
from milepost_client.streamed_work import StreamedWork
from tests.unit.client_script import (
    API_KEY,
    ID,
    UNDECODABLE,
    Never,
    Refusal,
    Streamed,
    talking,
)
from tests.unit.stream_service import Outbox, StreamService, claimed, streaming
from tests.waiting import until

LIMITED = Refusal(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=timedelta(milliseconds=400)
)


def lost(update: pb.ProgressUpdate, revision: int) -> pb.StreamProgressResponse:
    """Return the notice that the lease was lost with this revision."""
    kind = pb.INTERRUPTION_KIND_LEASE_LOST
    interruption = pb.Interruption(operation_id=update.operation_id, kind=kind, revision=revision)
    return pb.StreamProgressResponse(interruption=interruption)


def stale(update: pb.ProgressUpdate, attempt: int) -> pb.StreamProgressResponse:
    """Return the refusal of a report of this attempt."""
    error = pb.UpdateError(operation_id=update.operation_id, reason="STALE_ATTEMPT")
    error.metadata["expected"] = str(attempt)
    return pb.StreamProgressResponse(error=error)


async def test_lease_is_renewed_at_a_third_of_its_length():
    """A short lease is renewed after a third of it, a long one is not renewed meanwhile."""
    service = StreamService()
    async with streaming(service) as milepost:
        StreamedWork(milepost, claimed("short", lease_s=1.5))
        StreamedWork(milepost, claimed("long", lease_s=60))
        await until(lambda: bool(service.streams) and len(service.streams[0]) == 5)
    (reports,) = service.streams
    times = [time for time, name in reports if name == "short"]
    assert [name for _, name in reports].count("long") == 1
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert all(0.4 < gap < 1.0 for gap in gaps), gaps


async def test_most_urgent_renewal_is_sent_first():
    """After a disconnection the operation whose lease runs out first is reported first."""
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING")
    service = StreamService(lambda stream, number: away if (stream, number) == (0, 3) else None)
    async with streaming(service) as milepost:
        works = [
            StreamedWork(milepost, claimed(f"{lease_s}", lease_s=lease_s))
            for lease_s in (300, 30, 3_000)
        ]
        await until(lambda: bool(service.streams) and len(service.streams[0]) == 3)
        await works[0].progress(0.5)
        await until(lambda: len(service.streams) > 1 and len(service.streams[1]) == 3)
    assert [name for _, name in service.streams[1]] == ["30", "300", "3000"]


async def test_rate_limit_delays_the_stream_and_repeats_only_what_was_unanswered():
    """After RATE_LIMITED the next stream waits as long as RetryInfo says, and is no burst."""
    service = StreamService(lambda stream, number: LIMITED if (stream, number) == (0, 50) else None)
    async with streaming(service) as milepost:
        works = [StreamedWork(milepost, claimed(f"{n}", lease_s=60)) for n in range(50)]
        await until(lambda: bool(service.streams) and len(service.streams[0]) == 50)
        await until(lambda: not any(work._held.is_unanswered for work in works))
        await works[7].progress(0.5)
        await until(lambda: len(service.streams) > 1 and bool(service.streams[1]))
        await works[8].progress(0.5)
        await until(lambda: len(service.streams[1]) == 2)
    assert service.opened[1] - service.ended[0] >= 0.4
    assert [name for _, name in service.streams[1]] == ["7", "8"]


async def test_rate_limit_lets_leases_be_renewed():
    """Until the retry time after RATE_LIMITED, bare renewals are sent, and reports come later."""
    limited = Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=timedelta(seconds=2)
    )
    service = StreamService(lambda stream, number: limited if (stream, number) == (0, 1) else None)
    async with streaming(service) as milepost:
        work = StreamedWork(milepost, claimed("one", lease_s=2))
        await until(lambda: bool(service.streams) and len(service.streams[0]) == 1)
        await work.progress(0.5)
        await until(lambda: any(update.progress == 0.5 for update in service.updates))
        work.detach()
    times = [time for time, _ in service.streams[1]]
    early = [u for u, t in zip(service.updates[1:], times, strict=True) if t < service.ended[0] + 2]
    assert early
    assert not any(update.HasField("progress") for update in early)
    assert service.updates[-1].progress == 0.5


async def test_report_that_waits_for_the_end_of_a_rate_limit_is_kept(monkeypatch):
    """A bare renewal does not take the place of the report, which follows at the retry time."""
    monkeypatch.setattr(ProgressStream, "_wake", lambda _: None)
    async with streaming(StreamService()) as milepost:
        stream = ProgressStream(milepost._calls)
        held = stream.hold(claimed("one", lease_s=60), lambda _: None, lambda: None)
        await held.report(0.5)
        now = held.due_time
        stream._quiet_end_time = now + 1
        (renewal,) = stream._due_updates(now)
        held.acknowledge()
        assert stream._due_updates(now + 0.9) == []
        (report,) = stream._due_updates(now + 1)
    assert (renewal.HasField("progress"), report.progress) == (False, 0.5)


async def test_stream_that_is_limited_again_and_again_slows_down():
    """The pauses between streams grow as long as each is refused by the rate limit."""
    limited = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    service = StreamService(lambda _stream, number: limited if number == 1 else None)
    async with streaming(service) as milepost:
        works = [StreamedWork(milepost, claimed(f"{n}", lease_s=60)) for n in range(10)]
        await until(lambda: len(service.ended) == 6)
        for work in works:
            work.detach()
    assert service.opened[5] - service.ended[4] >= 0.4  # the fifth pause: half of 0.8 s or more


async def test_stream_is_open_only_while_operations_are_held():
    """A client without work in hand does not open the stream again."""
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", retry_after=timedelta(milliseconds=200))
    service = StreamService(lambda stream, number: away if (stream, number) == (0, 1) else None)
    async with streaming(service) as milepost:
        work = StreamedWork(milepost, claimed("one", lease_s=60))
        await until(lambda: bool(service.streams) and len(service.streams[0]) == 1)
        await work.progress(0.5)
        await until(lambda: bool(service.ended))
        work.detach()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await until(lambda: len(service.streams) > 1)
        assert len(service.streams) == 1
        StreamedWork(milepost, claimed("two", lease_s=60))
        await until(lambda: len(service.streams) == 2 and bool(service.streams[1]))
    assert [name for _, name in service.streams[1]] == ["two"]


@pytest.mark.parametrize(
    ("answer", "is_open"),
    [
        (partial(lost, revision=4), True),
        (partial(lost, revision=5), True),
        (partial(lost, revision=6), False),
        (partial(stale, attempt=1), True),
        (partial(stale, attempt=2), False),
    ],
)
async def test_answers_to_an_earlier_attempt_do_not_stop_the_present_one(answer, is_open):
    """An interruption or a refusal that is certainly older than the attempt is ignored."""
    service = StreamService(reply=answer)
    async with streaming(service) as milepost:
        work = StreamedWork(milepost, claimed("one", lease_s=0.3, attempt=2, revision=5))
        await until(lambda: not work.is_open or sum(map(len, service.streams)) > 2)
        assert work.is_open is is_open
        work.detach()


async def test_next_attempt_stops_the_earlier_one():
    """The client gets an operation again that it still works on: the earlier work is over."""
    reasons: list[MilepostError] = []
    async with streaming(StreamService()) as milepost:
        earlier = StreamedWork(milepost, claimed("one", lease_s=60), reasons.append)
        later = StreamedWork(milepost, claimed("one", lease_s=60, attempt=2))
        assert [type(reason) for reason in reasons] == [StaleAttempt]
        assert (earlier.is_open, later.is_open) == (False, True)
        earlier.detach()
        later.detach()


async def test_what_is_due_is_one_message():
    """Reports that are there together are sent in one message, and a later one by itself."""
    service = StreamService()
    async with streaming(service) as milepost:
        works = [StreamedWork(milepost, claimed(f"{n}", lease_s=60)) for n in range(1_500)]
        for work in works:
            work._held.update.progress = 0.1
        await until(lambda: sum(service.requests) == 1_500)
        await until(lambda: not any(work._held.is_unanswered for work in works))
        await works[3].progress(0.5)
        await until(lambda: len(service.updates) == 1_501)
    assert max(service.requests) <= 1_000
    assert len(service.requests) <= 20
    assert (service.requests[-1], service.updates[-1].operation_id) == (1, "3")


async def test_newer_report_waits_for_the_answer_to_the_last_one():
    """Of reports in quick succession the first is sent at once, and the last after its answer."""
    answer = asyncio.Event()
    service = StreamService(before_reply=answer.wait)
    async with streaming(service) as milepost:
        work = StreamedWork(milepost, claimed("one", lease_s=60))
        for tenth in range(1, 6):
            await work.progress(tenth / 10)
            await asyncio.sleep(0.1)
        assert [update.progress for update in service.updates] == [0.1]
        answer.set()
        await work.flush()
    assert [update.progress for update in service.updates] == [0.1, 0.5]


async def test_large_reports_are_several_messages():
    """A message stays below the limit of gRPC, however large the checkpoints in it are."""
    service = StreamService()
    async with streaming(service) as milepost:
        works = [StreamedWork(milepost, claimed(f"{n}", lease_s=60)) for n in range(50)]
        for work in works:
            work._held.update.message = "x" * 60_000
            work._held._version += 1
        await until(lambda: len(service.updates) == 50)
        assert len(service.streams) == 1
    assert max(service.requests) < 10


async def test_report_that_is_too_large_is_refused_locally():
    """A report that could end the stream of all operations raises an error, and is not sent."""
    service = StreamService()
    async with streaming(service) as milepost:
        work = StreamedWork(milepost, claimed("one", lease_s=60))
        with pytest.raises(ValueError, match="message has at most"):
            await work.progress(0.5, "x" * 3_000_000)
        with pytest.raises(ValueError, match="checkpoint has at most"):
            await work.checkpoint("x" * 3_000_000)
        with pytest.raises(ValueError, match="type_url has at most"):
            await work.checkpoint(any_pb2.Any(type_url="x" * 3_000_000))
        await work.progress(0.5, "fine")
        await work.flush()
    assert [update.message for update in service.updates] == ["fine"]
    assert len(service.streams) == 1


async def test_acknowledgement_of_an_older_report_leaves_the_newer_one_unstored():
    """Each acknowledgement stores the oldest of the unanswered reports, and no newer one."""
    held = HeldOperation(Outbox(), claimed("one", lease_s=60), lambda _: None, lambda: None)
    for number in range(1, 4):  # more than two: the answer to the second is not that of the third
        await held.report(number / 10)
        held.take(float(number))
    states = []
    for _ in range(3):
        held.acknowledge()
        states.append((held.is_unanswered, held.unstored is None))
    assert states == [(True, False), (True, False), (False, True)]


async def test_bare_renewal_stores_no_report():
    """The answer to a bare renewal after a rate limit says nothing about a newer report."""
    held = HeldOperation(Outbox(), claimed("one", lease_s=60), lambda _: None, lambda: None)
    await held.report(0.1)
    assert not held.take(1.0, bare=True).HasField("progress")
    held.acknowledge()
    assert held.unstored is not None


async def test_coroutine_of_a_thread_is_not_run_when_the_work_is_over():
    """A plain function that returns a coroutine after its work was taken away is not continued."""
    end, continued, ended = threading.Event(), asyncio.Event(), asyncio.Event()

    async def go_on() -> None:
        continued.set()

    def function(_work: object) -> Awaitable[None]:
        end.wait()
        return go_on()

    service = StreamService(reply=partial(lost, revision=6))
    async with streaming(service) as milepost:
        operation = claimed("one", lease_s=60, revision=5)
        execution = Execution(
            milepost, operation, function, patience_s=10, on_end=lambda _: ended.set()
        )
        await until(lambda: execution._is_over)
        end.set()
        await asyncio.wait_for(ended.wait(), 5)
    assert not continued.is_set()


async def test_closed_client_refuses_the_stream():
    """Work cannot be held by a client that is not open."""
    milepost = Milepost("127.0.0.1:7450", api_key=API_KEY)
    with pytest.raises(RuntimeError, match="not open"):
        StreamedWork(milepost, claimed("one", lease_s=60))


async def test_undecodable_item_reconnects_the_stream():
    """After an item that cannot be decoded, another stream is opened, and reports go on."""
    stored = pb.Acknowledgement(operation_id=ID, revision=3, attempt=1)
    good = Streamed((pb.StreamProgressResponse(acknowledgement=stored),), Never())
    async with talking(Streamed((UNDECODABLE,), Never()), good) as (milepost, service):
        work = StreamedWork(milepost, claimed(ID, lease_s=60))
        await work.progress(0.5)
        await until(lambda: len(service.asked) == 2)
        await until(lambda: work._held.unstored is None)


async def test_stored_report_is_renewed_by_an_empty_one():
    """A renewal repeats the newest report until it is stored; later ones are empty, and so free."""
    held = HeldOperation(Outbox(), claimed("one", lease_s=60), lambda _: None, lambda: None)
    await held.report(0.5, "half")
    assert held.take(1.0).progress == 0.5
    assert held.take(2.0).message == "half"
    held.acknowledge()
    held.acknowledge()
    renewal = held.take(21.0)
    assert {field.name for field, _ in renewal.ListFields()} == {"operation_id", "attempt"}
    await held.report(message="more")
    assert (held.take(22.0).progress, held.take(23.0).message) == (0.5, "more")
