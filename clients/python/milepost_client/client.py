"""The client: all that callers and workers can do, in one class."""

from contextlib import AbstractAsyncContextManager

from milepost_client.callers import Callers
from milepost_client.receivers import Receivers
from milepost_client.streamed_work import working
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
        """Do the work of an operation: started before the block, and ended with it.

        ::

            async with milepost.work(operation_id) as work:
                await work.progress(0.4, "halfway, nearly")
                work.result = {"frames": 1200}

        When the block ends, the operation is completed with `work.result`. When it raises, even
        by being interrupted, the operation is failed with the name of the exception's class as
        code and its text as message, and the exception goes on; if failing it did not work
        either, a note on the exception says so.

        When somebody has cancelled the operation, `work.progress` and `work.complete` raise
        `Cancelled` in the block, or the end of the block does. It then stays cancelled, and the
        error goes on unless the block catches it. The same holds for `StaleAttempt`, when the
        work was handed to another worker.

        Args:
            operation_id: The operation.
            worker: Your name, for people who look for you.
            stream: Report on the progress stream that all work of this client shares: reports
                cost next to nothing, and a cancel is known at once.

        Raises:
            IllegalTransition: It is not pending.
            OperationNotFound: There is none for you.
        """
        return working(
            self,
            operation_id,
            worker=worker,
            stream=self._progress_stream if stream else None,
        )
