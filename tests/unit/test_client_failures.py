"""The exceptions with which a function chooses its end, and the ends of all others."""

import pickle
from datetime import timedelta

import grpc
import pytest

from milepost_client import AcknowledgeCancellation, OperationError, PermanentFailure, RetryLater
from milepost_client.convert import from_operation
from milepost_client.failure import describe
from milepost_client.gen.milepost.v1 import worker_service_pb2 as pb
from milepost_client.work import Work, end_because
from tests.unit.client_script import ID, Refusal, operation, started, talking

FAILED = pb.FailOperationResponse(operation=operation("FAILED", attempt=1))
NOT_REQUESTED = Refusal(grpc.StatusCode.FAILED_PRECONDITION, "CANCELLATION_NOT_REQUESTED")
ACKNOWLEDGED = pb.AcknowledgeCancellationResponse(operation=operation("CANCELLED", attempt=1))


async def end(problem, *script):
    """Return what the service is asked when a function of a worker raises the exception."""
    async with talking(*script) as (milepost, service):
        work = Work(milepost, from_operation(operation("PROCESSING", attempt=1)))
        await end_because(work, problem, retryable=True)
        assert not work.is_open
    return service


@pytest.mark.parametrize(
    ("problem", "retryable", "delay"),
    [
        (ValueError("x"), True, None),
        (PermanentFailure("x"), False, None),
        (RetryLater(90, "x"), True, timedelta(seconds=90)),
        (RetryLater(timedelta(hours=1)), True, timedelta(hours=1)),
    ],
    ids=["any other", "permanent", "later", "later by a timedelta"],
)
async def test_exception_decides_about_the_next_attempt(problem, retryable, delay):
    """Any exception is worth another attempt, a permanent failure is not."""
    (request,) = (await end(problem, FAILED)).requests
    assert request.retryable is retryable
    assert request.HasField("retry_delay") is (delay is not None)
    assert delay is None or request.retry_delay.ToTimedelta() == delay


async def test_acknowledged_cancel_is_no_failure():
    """The exception of a stopped function acknowledges the cancel."""
    service = await end(AcknowledgeCancellation(), ACKNOWLEDGED)
    assert service.methods == ["AcknowledgeCancellation"]
    assert (service.requests[0].operation_id, service.requests[0].attempt) == (ID, 1)


async def test_acknowledgement_without_a_request_fails_the_attempt():
    """A function that acknowledges what was not requested has failed."""
    service = await end(AcknowledgeCancellation(), NOT_REQUESTED, FAILED)
    assert service.methods == ["AcknowledgeCancellation", "FailOperation"]
    assert service.requests[1].errors[0].code == "CancellationNotRequested"


class Exiting(dict[str, int]):
    """Details that end the program when they are read."""

    def __iter__(self):
        raise SystemExit(3)


@pytest.mark.parametrize(
    "details", [{"a": object()}, {"a": float("nan")}, {"a": "\udcff"}, {"a": Exiting(b=1)}]
)
async def test_details_that_cannot_be_sent_are_a_final_failure(details):
    """Every attempt would end with the same details: the failure is final, and says why."""
    (request,) = (await end(PermanentFailure("x", details=details), FAILED)).requests
    assert (request.errors[0].code, request.retryable) == ("InvalidError", False)


async def test_error_that_is_refused_is_a_final_failure():
    """An error that the service refuses is replaced, and not tried again."""
    refused = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    first, second = (await end(ValueError("x"), refused, FAILED)).requests
    assert (first.retryable, second.retryable) == (True, False)
    assert second.errors[0].code == "InvalidError"


async def test_error_above_the_size_of_a_message_is_a_final_failure():
    """An error that no message can hold, which gRPC refuses without a reason, is replaced too."""
    refused = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED)
    problem = PermanentFailure("x", details={"a": "x" * (1 << 21)})
    _, second = (await end(problem, refused, FAILED)).requests
    assert second.errors[0].code == "InvalidError"


@pytest.mark.parametrize(
    ("problem", "retryable"),
    [(ValueError("x"), False), (PermanentFailure("x"), False), (RetryLater(1), True)],
)
async def test_block_fails_finally_unless_it_says_otherwise(problem, retryable):
    """The exception of a block reaches the program, which decides about another attempt."""
    async with talking(started(), FAILED) as (milepost, service):
        with pytest.raises(type(problem)):
            async with milepost.work(ID):
                raise problem
    assert service.requests[-1].retryable is retryable


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (RetryLater(5, "busy"), OperationError("RetryLater", "busy")),
        (RetryLater(5), OperationError("RetryLater", "to be tried again in 0:00:05")),
        (PermanentFailure(), OperationError("PermanentFailure", "PermanentFailure('')")),
        (
            PermanentFailure("m", code="C", source="s", details={"a": 1}),
            OperationError("C", "m", "s", {"a": 1}),
        ),
    ],
)
def test_description_survives_a_process_pool(problem, error):
    """The exceptions can be pickled, as a pool of processes does, and describe themselves."""
    copy = pickle.loads(pickle.dumps(problem))  # noqa: S301 - our own bytes
    assert describe(copy) == describe(problem) == error
    assert copy.__dict__ == problem.__dict__


@pytest.mark.parametrize("delay", [float("nan"), float("inf")])
def test_delay_is_a_length_of_time(delay):
    """A delay that is none is an error where it is written."""
    with pytest.raises((ValueError, OverflowError)):
        RetryLater(delay)
