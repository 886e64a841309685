"""Several updates in one message of StreamProgress, and several acknowledgements in one answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from tests.e2e.client import Client
from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.e2e.test_streaming import UNKNOWN, Stream

SOON_S = 20.0
MANY = 200


class BatchStream(Stream):
    """A stream whose messages have several updates."""

    async def send_all(self, *updates: pb.ProgressUpdate, **fields: Any) -> None:
        """Send updates in one message."""
        await self.call.write(pb.StreamProgressRequest(updates=updates, **fields))

    async def answer(self) -> pb.StreamProgressResponse:
        """Return the next answer."""
        response = await asyncio.wait_for(self.call.read(), SOON_S)
        assert isinstance(response, pb.StreamProgressResponse), "the stream has ended"
        return response

    async def answers(self) -> list[pb.StreamProgressResponse]:
        """End the updates and return all answers up to the end of the stream."""
        await self.call.done_writing()
        found = []
        while (response := await asyncio.wait_for(self.call.read(), SOON_S)) is not grpc.aio.EOF:
            found.append(response)
        return found


def update(operation_id: str, **fields: Any) -> pb.ProgressUpdate:
    """Return one update."""
    return pb.ProgressUpdate(operation_id=operation_id, **fields)


@asynccontextmanager
async def batches(service: Service, client: Client) -> AsyncIterator[BatchStream]:
    """Open a stream for several updates in a message."""
    async with service.aio_channel() as channel:
        stream = BatchStream(client, channel)
        yield stream
        stream.call.cancel()


async def test_updates_of_one_message_are_committed_and_acknowledged_together(
    any_service, alice, worker
):
    """Each update of a message is committed, and the acknowledgements share a few answers."""
    operations = [alice.create() for _ in range(MANY)]
    async with batches(any_service, worker) as stream:
        await stream.send_all(*(update(each.id, progress=0.5, message="m") for each in operations))
        answers = await stream.answers()
        assert await stream.call.code() is StatusCode.OK
    acknowledged = [item for answer in answers for item in answer.acknowledgements]
    assert sorted(item.operation_id for item in acknowledged) == sorted(
        each.id for each in operations
    )
    assert all(answer.WhichOneof("item") is None for answer in answers)
    assert len(answers) < MANY / 4, len(answers)
    for item in acknowledged[:3]:
        stored = alice.get(item.operation_id)
        assert (stored.progress, stored.progress_message) == (0.5, "m")
        assert (item.revision, item.attempt) == (stored.revision, 1)


async def test_updates_of_one_operation_are_taken_in_order(any_service, alice, worker):
    """Of several updates of one operation in a message the first and the newest are committed."""
    operation = alice.create()
    async with batches(any_service, worker) as stream:
        steps = [update(operation.id, progress=n / 10, message=str(n)) for n in range(1, 10)]
        await stream.send_all(*steps)
        answers = await stream.answers()
    assert alice.get(operation.id).progress_message == "9"
    assert answers[-1].acknowledgements[-1].revision == alice.get(operation.id).revision


async def test_bad_updates_are_refused_by_themselves(any_service, alice):
    """A bad update in a message is answered by an error with its id; the others are committed."""
    good = [alice.create() for _ in range(2)]
    theirs, done = any_service.client("bob").create(), alice.create_in("COMPLETED")
    async with batches(any_service, alice) as stream:
        await stream.send_all(
            update(good[0].id, progress=0.5),
            update("nonsense", progress=0.5),
            update(""),
            update(good[0].id, progress=float("nan")),
            update(theirs.id, progress=0.5),
            update(UNKNOWN, progress=0.5),
            update(done.id, progress=0.5),
            update(good[1].id, progress=0.5, message="x" * 1_001),
            update(good[1].id, progress=0.5),
        )
        answers = await stream.answers()
        assert await stream.call.code() is StatusCode.OK
    errors = [(a.error.operation_id, a.error.reason) for a in answers if a.HasField("error")]
    assert sorted(errors) == sorted(
        [
            ("nonsense", "INVALID_REQUEST"),
            ("", "INVALID_REQUEST"),
            (good[0].id, "INVALID_REQUEST"),
            (theirs.id, "OPERATION_NOT_FOUND"),
            (UNKNOWN, "OPERATION_NOT_FOUND"),
            (done.id, "ILLEGAL_TRANSITION"),
            (good[1].id, "INVALID_REQUEST"),
        ]
    )
    acknowledged = {item.operation_id for answer in answers for item in answer.acknowledgements}
    assert acknowledged == {each.id for each in good}


async def test_message_that_breaks_the_rules_is_one_refusal(any_service, alice):
    """Updates beside another field, or too many, are refused as a whole; the stream goes on."""
    operation = alice.create()
    async with batches(any_service, alice) as stream:
        await stream.send_all(update(operation.id, progress=0.5), operation_id=operation.id)
        mixed = (await stream.answer()).error
        await stream.send_all(*[update(operation.id, progress=0.5)] * 1_001)
        too_many = (await stream.answer()).error
        assert alice.get(operation.id).revision == 1
        await stream.send_all(update(operation.id, progress=0.5))
        (answer,) = await stream.answers()
    assert (mixed.operation_id, mixed.reason) == (operation.id, "INVALID_REQUEST")
    assert (too_many.operation_id, too_many.reason) == ("", "INVALID_REQUEST")
    assert "updates: must be at most 1000 updates, found 1001" in too_many.message
    assert [item.operation_id for item in answer.acknowledgements] == [operation.id]


async def test_single_updates_are_acknowledged_singly(any_service, alice, worker):
    """A worker that sends no `updates` gets each acknowledgement by itself."""
    operations = [alice.create() for _ in range(20)]
    async with batches(any_service, worker) as stream:
        for each in operations:
            await stream.send(each.id, progress=0.5)
        answers = await stream.answers()
    assert [answer.WhichOneof("item") for answer in answers] == ["acknowledgement"] * 20
    assert not any(answer.acknowledgements for answer in answers)


async def test_interruptions_stay_items(any_service, alice, worker):
    """A worker of several updates is interrupted as any other."""
    operation, other = alice.create(), alice.create()
    async with batches(any_service, worker) as stream, any_service.aio_channel() as channel:
        await stream.send_all(update(operation.id, progress=0.5), update(other.id, progress=0.5))
        seen = 0
        while seen < 2:
            seen += len((await stream.answer()).acknowledgements)
        await alice.begin(channel, "CancelOperation", operation_id=operation.id)
        interruption = (await stream.answer()).interruption
    assert interruption.operation_id == operation.id
    assert interruption.kind == pb.INTERRUPTION_KIND_CANCELLED


@pytest.mark.parametrize("is_batched", [True, False])
async def test_every_update_is_charged(database_url, tmp_path, is_batched):
    """Updates cost the same in one message as in many, and those before the limit are taken."""
    with Service(database_url, tmp_path, worker_writes_per_minute="10") as service:
        alice = service.client("alice")
        operations = [alice.create() for _ in range(20)]
        async with batches(service, service.worker()) as stream:
            if is_batched:
                await stream.send_all(*(update(each.id, progress=0.5) for each in operations))
            else:
                for each in operations[:10]:  # grpc.aio loses the code of a refusal that it meets
                    await stream.send(each.id, progress=0.5)
            with refused(StatusCode.RESOURCE_EXHAUSTED):
                for _ in operations:
                    await stream.answer()
        assert service.metric("milepost_progress_updates_total", fate="received") == 9
        started = [alice.get(each.id).revision for each in operations[9:]]
        assert started == [1] * 11  # the opening of the stream costs one
