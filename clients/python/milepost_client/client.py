"""The client: the calls of callers, receivers of webhooks, and workers in one class."""

from contextlib import AbstractAsyncContextManager

from milepost_client.callers import Callers
from milepost_client.receivers import Receivers
from milepost_client.streamed_work import work_block
from milepost_client.work import Work
from milepost_client.workers import Workers


class Milepost(Callers, Receivers, Workers):
    """A client of the service at one address.

    ::

        async with Milepost("127.0.0.1:7450", api_key=key) as milepost:
            operation = await milepost.create("video.transcode", metadata={"source": "in.mov"})
            print(await milepost.result(operation.id))
    """

    def work(
        self, operation_id: str, *, worker: str | None = None, stream: bool = False
    ) -> AbstractAsyncContextManager[Work]:
        """Do the work of an operation: start it before the block, and end it with the block.

        ::

            async with milepost.work(operation_id) as work:
                await work.progress(0.4, "halfway, nearly")
                work.result = {"frames": 1200}

        When the block ends, the operation is completed with `work.result`. When the block raises,
        even because it is interrupted, the operation is failed with the class of the exception as
        code and its text as message, and the exception propagates; if the operation could not be
        failed, a note on the exception says so. Both ends are tried again, for 5 minutes, while
        the service is unavailable or limits the rate.

        When the operation was cancelled, `work.progress` and `work.complete` raise `Cancelled` in
        the block, or the end of the block does. The operation stays cancelled, and the error
        propagates unless the block catches it. The same holds for `StaleAttempt`, when another
        worker has the operation.

        Args:
            operation_id: The operation.
            worker: The name of this worker, shown to operators.
            stream: Report on the progress stream that all work of this client shares: a report
                costs little and does not wait for an answer, and a cancel is known at once.

        Raises:
            IllegalTransition: It is not pending.
            OperationNotFound: The operation does not exist, or is not visible to this worker.
        """
        return work_block(self, operation_id, worker=worker, streamed=stream)
