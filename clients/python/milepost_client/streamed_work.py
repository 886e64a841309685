"""The work on one operation, reported on the progress stream that all work of a client shares."""

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

from google.protobuf.message import Message

from milepost_client.errors import InvalidRequest, MilepostError
from milepost_client.operation import Json, Operation, OperationError
from milepost_client.progress_stream import ProgressStream
from milepost_client.work import Work, ending
from milepost_client.workers import Workers


@asynccontextmanager
async def working(
    workers: Workers, operation_id: str, *, worker: str | None, stream: ProgressStream | None
) -> AsyncGenerator[Work, None]:
    """Start the operation, and end it with the block. `Milepost.work` tells how."""
    operation = await workers.start(operation_id, worker=worker)
    if stream is None:
        async with ending(Work(workers, operation)) as work:
            yield work
        return
    streamed = StreamedWork(workers, stream, operation)
    try:
        async with ending(streamed):
            yield streamed
    finally:
        streamed.unfollow()


class StreamedWork(Work):
    """Work whose reports wait for nobody, and whose lease is renewed until it is over.

    What is wrong with one report, the next one raises.
    """

    def __init__(
        self,
        workers: Workers,
        stream: ProgressStream,
        operation: Operation,
        on_over: Callable[[MilepostError], None] = lambda _: None,
    ) -> None:
        """Hold the operation; `on_over` is called, with the reason, if the work must stop."""
        super().__init__(workers, operation)
        self._on_over = on_over
        self._reason: MilepostError | None = None
        self._following = stream.follow(operation.id, operation.attempt, self._over)

    async def progress(self, progress: float | None = None, message: str | None = None) -> None:
        """Say how far the work is; see `Work.progress`."""
        self._require_open()
        await self._following.report(progress, message)

    async def complete(self, result: Json | Message = None) -> None:
        """Complete the operation, after its last report; see `Work.complete`."""
        await self._settle()
        await super().complete(result)

    async def fail(self, *errors: OperationError) -> None:
        """Fail the operation, after its last report; see `Work.fail`."""
        await self._settle()
        await super().fail(*errors)

    def let_go(self) -> None:
        """Leave the operation as it is: when its lease runs out, another worker gets it."""
        self._open = False
        self.unfollow()

    def unfollow(self) -> None:
        """Report no more, and renew the lease no more."""
        self._following.close()

    async def _settle(self) -> None:
        """See to it that the last report is stored, which the stream may have had no time for."""
        self._require_open()
        last = self._following.unsettled
        if last is not None:
            with suppress(InvalidRequest):  # it was refused, and the end is not
                await super().progress(
                    last.progress if last.HasField("progress") else None,
                    last.message if last.HasField("message") else None,
                )

    def _over(self, reason: MilepostError) -> None:
        if self._open:
            self._open = False
            self._reason = reason
            self._on_over(reason)

    def _require_open(self) -> None:
        reason, self._reason = self._reason, None
        if reason is not None:
            raise reason
        super()._require_open()
