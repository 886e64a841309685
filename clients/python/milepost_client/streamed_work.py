"""The work on one operation, reported on the progress stream that all work of a client shares."""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Final

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message

from milepost_client.convert import to_checkpoint, to_message
from milepost_client.errors import OVER, MilepostError
from milepost_client.operation import Json, Operation, OperationError
from milepost_client.pace import Duration
from milepost_client.retry import END_TIMEOUT_S, until_final
from milepost_client.work import Work, ending
from milepost_client.workers import Workers

log: Final = logging.getLogger("milepost_client.worker")


@asynccontextmanager
async def work_block(
    workers: Workers, operation_id: str, *, worker: str | None, streamed: bool
) -> AsyncGenerator[Work, None]:
    """Start the operation, and end it with the block; see `Milepost.work`."""
    operation = await workers.start(operation_id, worker=worker)
    if not streamed:
        work = Work(workers, operation)
        async with ending(work):
            yield work
        return
    streaming = StreamedWork(workers, operation)
    try:
        async with ending(streaming):
            yield streaming
    finally:
        streaming.detach()


class StreamedWork(Work):
    """Work whose reports do not wait for an answer, and whose lease is renewed until its end.

    The error of a refused report is raised by the next report.
    """

    def __init__(
        self,
        workers: Workers,
        operation: Operation,
        on_over: Callable[[MilepostError], None] = lambda _: None,
        *,
        end_timeout_s: float = END_TIMEOUT_S,
    ) -> None:
        """Hold the operation; `on_over` is called, with the reason, if the work must stop."""
        super().__init__(workers, operation, end_timeout_s=end_timeout_s)
        self._on_over = on_over
        self._reason: MilepostError | None = None
        self._is_left = False
        stream = workers._progress_stream  # noqa: SLF001 - shared by all work of the client
        self._held = stream.hold(operation, self._over, self._request_cancel)

    async def progress(
        self,
        progress: float | None = None,
        message: str | None = None,
        *,
        checkpoint: Json | Message = None,
    ) -> None:
        """Report the progress of the work; see `Work.progress`."""
        self._require_open()
        await self._held.report(progress, to_message(message), to_checkpoint(checkpoint))

    async def flush(self) -> None:
        """Return when everything that was reported so far is stored; see `Work.flush`."""
        self._require_open()
        await self._held.flush()

    async def complete(self, result: Json | Message = None) -> None:
        """Complete the operation, after its last report; see `Work.complete`."""
        await self._store_last_report()
        await super().complete(result)

    async def fail(
        self,
        *errors: OperationError,
        retryable: bool = False,
        retry_delay: Duration | None = None,
    ) -> None:
        """Fail the operation, after its last report; see `Work.fail`."""
        await self._store_last_report()
        await super().fail(*errors, retryable=retryable, retry_delay=retry_delay)

    async def acknowledge_cancellation(self) -> None:
        """End the cancelled operation, after its last report; see the form of `Work`."""
        await self._store_last_report()
        await super().acknowledge_cancellation()

    async def leave(self) -> None:
        """Give the unfinished operation back: another worker gets it, at once if possible.

        Its last checkpoint is stored before. If a cancel is requested, it is acknowledged instead.
        Without an answer within 3 s, another worker gets it when its lease runs out.
        """
        self._open = False
        if self._is_left:
            return
        self._is_left = True
        try:
            await self._workers._give_back(  # noqa: SLF001 - of the client
                self._id,
                self._attempt,
                checkpoint=await self._unstored_checkpoint(),
                is_cancelled=self._cancel_requested.is_set(),
            )
        except Exception as problem:  # noqa: BLE001 - the program ends, and the lease with it
            log.info("%r was not released: %r", self, problem)
        finally:
            self.detach()

    def detach(self) -> None:
        """Report nothing more, and renew the lease no more."""
        self._held.close()

    async def _unstored_checkpoint(self) -> Packed | None:
        """Return the last checkpoint, once it is on the stream, or None if it is stored."""
        last = self._held.unstored
        if last is None or not last.HasField("checkpoint"):
            return None
        await self._held.send()
        return last.checkpoint

    async def _store_last_report(self) -> None:
        """Store the last report by a call if the stream has not: both may use other replicas."""
        self._require_open()
        self._held.only_renew()
        checkpoint = await self._unstored_checkpoint()
        last = self._held.unstored
        if last is None:
            return
        progress = last.progress if last.HasField("progress") else None
        message = last.message if last.HasField("message") else None
        try:
            self._operation = await until_final(
                lambda: self._workers.update_progress(
                    self._id, progress, message, checkpoint=checkpoint, attempt=self._attempt
                ),
                timeout_s=self._end_timeout_s,
            )
        except OVER:
            self._open = False
            raise
        except MilepostError:
            pass  # the report is lost, the end is not
        else:
            self._held.settle()

    def _over(self, reason: MilepostError) -> None:
        if self._open:
            self._open = False
            self._reason = reason
            self._on_over(reason)

    def _require_open(self) -> None:
        if self._reason is not None:
            raise self._reason
        super()._require_open()
