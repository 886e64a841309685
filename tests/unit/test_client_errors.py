"""The errors of the client: one tree, rebuilt from what the service sends beside its sentence."""

import pickle
from datetime import timedelta

import grpc
import pytest

import milepost_client
from milepost.domain import errors as domain
from milepost_client import MilepostError, OperationError, Violation, errors
from milepost_client.convert import from_operation
from milepost_client.errors import no_result
from milepost_client.gen.milepost.v1 import operation_pb2 as pb
from milepost_client.refusal import BY_CODE, BY_REASON
from tests.unit.client_script import ID, Refusal, illegal, operation, talking

CODE = grpc.StatusCode


def tree(root):
    """Yield the class and everything below it."""
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def reasons_of_the_service():
    """Return every reason of the service's own tree."""
    return sorted({kind.reason for kind in tree(domain.MilepostError) if hasattr(kind, "reason")})


async def refused(refusal):
    """Return the error that the client makes of the refusal."""
    async with talking(refusal, deadline=2.0) as (milepost, _):
        with pytest.raises(MilepostError) as caught:
            await milepost.cancel(ID)
    return caught.value


@pytest.mark.parametrize("reason", reasons_of_the_service())
def test_every_reason_of_the_service_has_a_class(reason):
    """Whatever the service can answer has a class of its own, and no two share one."""
    assert reason in BY_REASON
    assert len(set(BY_REASON.values())) == len(BY_REASON)


def test_every_class_is_drawn_and_exported():
    """Every class of the tree stands in the drawing, and can be imported from the package."""
    for kind in tree(MilepostError):
        assert f" {kind.__name__} " in errors.__doc__ or kind is MilepostError
        assert getattr(milepost_client, kind.__name__) is kind
        assert kind.__name__ in milepost_client.__all__


@pytest.mark.parametrize("reason", BY_REASON)
async def test_error_is_rebuilt_from_its_reason(reason):
    """The reason alone decides the class, whatever the code and the sentence are."""
    error = await refused(Refusal(CODE.ABORTED, reason))
    assert type(error) is BY_REASON[reason]
    assert (error.reason, error.code, str(error)) == (reason, CODE.ABORTED, "as scripted")


@pytest.mark.parametrize("code", [code for code in CODE if code is not CODE.OK])
async def test_unknown_reason_falls_back_to_the_code(code):
    """A reason of a newer service gives the class of its code, and the root where none fits."""
    pause = timedelta(minutes=1)  # ends the tries at UNAVAILABLE
    error = await refused(Refusal(code, "FROM_THE_FUTURE", {"fact": "1"}, retry_after=pause))
    assert type(error) is BY_CODE.get(code, MilepostError)
    assert (error.reason, error.metadata) == ("FROM_THE_FUTURE", {"fact": "1"})


async def test_reason_of_another_domain_is_none():
    """A reason that is not the service's, a proxy's perhaps, decides nothing."""
    error = await refused(Refusal(CODE.NOT_FOUND, "ILLEGAL_TRANSITION", domain="proxy.example"))
    assert type(error) is errors.NotFound
    assert error.reason == ""


async def test_details_that_cannot_be_read_are_left_out():
    """Broken details cost the reason, not the error."""

    class Broken(Refusal):
        def details(self):
            return b"\xff\xff"

    error = await refused(Broken(CODE.NOT_FOUND, "OPERATION_NOT_FOUND"))
    assert type(error) is errors.NotFound


async def test_every_violation_is_told():
    """InvalidRequest names every violated field, in the order of the service."""
    wrong = {"operation_id": "is malformed", "request_id": "is too long"}
    error = await refused(Refusal(CODE.INVALID_ARGUMENT, "INVALID_REQUEST", violations=wrong))
    assert isinstance(error, errors.InvalidRequest)
    assert error.violations == tuple(Violation(*item) for item in wrong.items())


async def test_retry_after_is_told():
    """The pause that the service asks for is told as a timedelta."""
    pause = timedelta(seconds=1.5)
    error = await refused(Refusal(CODE.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=pause))
    assert error.retry_after == pause


async def test_illegal_move_tells_both_sides_of_the_rule():
    """IllegalTransition tells the transition, the status found, and the statuses allowed."""
    error = await refused(illegal("cancel", "COMPLETED"))
    assert type(error) is errors.IllegalTransition
    assert (error.transition, error.status) == ("cancel", "COMPLETED")
    assert error.allowed == {"PENDING", "PROCESSING"}


async def test_illegal_move_of_a_cancelled_operation_is_cancelled():
    """IllegalTransition becomes Cancelled where the status found is CANCELLED."""
    assert type(await refused(illegal("cancel", "CANCELLED"))) is errors.Cancelled


def test_tree_agrees_with_the_tree_of_the_service():
    """What the service says is a kind of something else is so for the client, too."""
    for kind in filter(lambda kind: hasattr(kind, "reason"), tree(domain.MilepostError)):
        parents = [parent for parent in kind.__mro__[1:] if hasattr(parent, "reason")]
        for parent in parents:
            assert issubclass(BY_REASON[kind.reason], BY_REASON[parent.reason])


def test_failure_is_told_in_its_own_words():
    """OperationFailed says in its text what went wrong, and holds the stored errors."""
    failure = pb.OperationError(code="CODEC", message="no such codec")
    error = no_result(from_operation(operation("FAILED", errors=[failure])))
    assert isinstance(error, errors.OperationFailed)
    assert error.errors == (OperationError("CODEC", "no such codec"),)
    assert str(error) == f"operation {ID} failed: CODEC: no such codec"


def test_errors_travel_between_processes():
    """Every error can be pickled, which process pools do, and is whole afterwards."""
    answered = errors.RateLimited("slow down", code=CODE.RESOURCE_EXHAUSTED, reason="RATE_LIMITED")
    copy = pickle.loads(pickle.dumps(answered))  # noqa: S301 - our own bytes
    assert (str(copy), copy.__dict__) == (str(answered), answered.__dict__)
    ended = no_result(from_operation(operation("CANCELLED")))
    copy = pickle.loads(pickle.dumps(ended))  # noqa: S301 - our own bytes
    assert (type(copy), copy.operation) == (errors.OperationCancelled, ended.operation)
