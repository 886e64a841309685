"""Unmodified clients of google.longrunning in several languages: what their futures see."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, struct_pb2
from google.rpc import code_pb2

from milepost.domain.operation import OperationId
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests import factories
from tests.e2e.client import Client
from tests.e2e.lro.programs import Program, languages, running
from tests.e2e.service import Service

GET = "google.longrunning.Operations/GetOperation"
MISSING = f"operations/op_{'0' * 24}"
READS_PER_MINUTE = 60
WITHOUT_CODE = "asyncio"
"""The client whose error has lost the code of the operation."""
UNPACKING_ERRORS = {"TypeError", "*errors.prefixError", "*errors.wrapError", "UnknownException"}
"""Errors of futures whose response has another type than they declare."""


@pytest.fixture(params=languages())
def language(request: pytest.FixtureRequest) -> str:
    """A language whose stock client can run here."""
    name: str = request.param
    return name


def named(operation: pb.Operation) -> str:
    """Return the name of an operation."""
    return f"operations/{operation.id}"


def packed(message: Any) -> any_pb2.Any:
    """Return a message as a result."""
    result = any_pb2.Any()
    result.Pack(message)
    return result


def struct(**fields: float) -> struct_pb2.Struct:
    """Return a Struct of numbers."""
    message = struct_pb2.Struct()
    message.update(fields)
    return message


@pytest.fixture
def follow(any_service, alice, language):
    """A function that runs the stock client with a verb."""
    return lambda verb, name="", **more: running(
        language, any_service.address, alice.key, verb, name, **more
    )


def test_progress_and_result(alice, follow):
    """A future shows the progress in the metadata, and its result is the packed Struct."""
    operation = alice.create_in("PROCESSING")
    alice.transition("UpdateProgress", operation.id, progress=0.5)
    with follow("wait", named(operation)) as future:
        assert future.line() == {"status": "OPERATION_STATUS_PROCESSING", "progress": 0.5}
        alice.transition("CompleteOperation", operation.id, result=packed(struct(n=1)))
        end = future.last()
    assert (end["value"], end["status"]) == ({"n": 1}, "OPERATION_STATUS_COMPLETED")


def test_no_result_is_an_empty_value(alice, follow):
    """An operation without a result resolves to an empty Struct."""
    with follow("wait", named(alice.create_in("COMPLETED"))) as future:
        assert future.last()["value"] == {}


def test_value_where_a_struct_is_declared(alice, follow, language):
    """A future that declares Struct refuses a Value; that of Node decodes the bytes unseen."""
    value = packed(struct_pb2.Value(number_value=1))
    operation = alice.create_in("PROCESSING")
    alice.transition("CompleteOperation", operation.id, result=value)
    with follow("wait", named(operation)) as future:
        end = future.last()
    if language == "node":
        assert end.get("error") != "GoogleError"
    else:
        assert end["error"] in UNPACKING_ERRORS


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("FAILED_PRECONDITION", code_pb2.FAILED_PRECONDITION),
        ("CODEC_UNSUPPORTED", code_pb2.UNKNOWN),
    ],
)
def test_failure(alice, follow, language, code, expected):
    """The failure of an operation is the error of the future, with code and message."""
    operation = alice.create_in("PROCESSING")
    with follow("wait", named(operation)) as future:
        future.line()
        errors = [pb.OperationError(code=code, message="no such codec")]
        alice.transition("FailOperation", operation.id, errors=errors)
        end = future.last()
    assert "no such codec" in end["message"]
    assert end["code"] == (None if language == WITHOUT_CODE else expected)


def test_cancel(alice, follow, language):
    """The future's cancel reaches the operation, and the future ends with CANCELLED."""
    operation = alice.create_in("PROCESSING")
    with follow("cancel", named(operation)) as future:
        end = future.last()
    assert end["code"] == (None if language == WITHOUT_CODE else code_pb2.CANCELLED)
    assert alice.get(operation.id).status == pb.OPERATION_STATUS_CANCELLED


@pytest.mark.parametrize("past", ["missing", "expired", "deleted"])
def test_nothing_there(any_service, alice, follow, past):
    """A name without an operation, also an expired or deleted one, ends the future: NOT_FOUND."""
    name = MISSING
    if past == "expired":
        operation = alice.create()
        factories.age(any_service.engine, OperationId(operation.id), timedelta(days=2))
        name = named(operation)
    if past == "deleted":
        name = named(alice.create_in("COMPLETED"))
        with follow("delete", name) as client:
            assert client.last() == {"deleted": True}
    with follow("wait", name) as future:
        assert future.last()["code"] == code_pb2.NOT_FOUND


def test_active_operation_is_not_deleted(alice, follow):
    """The delete of an active operation is FAILED_PRECONDITION."""
    with follow("delete", named(alice.create())) as client:
        assert client.last()["code"] == code_pb2.FAILED_PRECONDITION


def test_list(alice, follow):
    """The pager of the client passes over all pages of the filtered list."""
    alice.create()
    ended = [alice.create_in("COMPLETED") for _ in range(120)]
    with follow("list") as client:
        assert client.last()["names"] == [named(operation) for operation in reversed(ended)]


def test_held_future_polls_once(alice, follow):
    """A future whose polls are held is at its end with the answer to its first poll."""
    operation = alice.create_in("PROCESSING")
    with follow("wait", named(operation), hold_s=30) as future:
        alice.transition("CompleteOperation", operation.id, result=packed(struct(n=1)))
        assert future.last()["value"] == {"n": 1}


@pytest.fixture
def futures(database_url, tmp_path):
    """A service of its own, and the future of each language, which has polled it."""
    with ExitStack() as stack:
        service = Service(database_url, tmp_path, reads_per_minute=str(READS_PER_MINUTE))
        stack.enter_context(service)
        alice, worker = service.client("alice"), service.worker()
        operations = [alice.create() for _ in languages()]
        programs = [
            stack.enter_context(
                running(language, service.address, alice.key, "wait", named(operation))
            )
            for language, operation in zip(languages(), operations, strict=True)
        ]
        for program in programs:
            program.line()
        yield Futures(service, alice, worker, operations, programs)


@dataclass(frozen=True)
class Futures:
    """Futures that poll the active operations of a service."""

    service: Service
    alice: Client
    worker: Client
    operations: list[pb.Operation]
    programs: list[Program]

    def complete(self) -> None:
        """Complete the operations, and assert that each future ends with the result."""
        for operation in self.operations:
            self.worker.transition("StartOperation", operation.id)
            self.worker.transition("CompleteOperation", operation.id, result=packed(struct(n=1)))
        ends = dict(zip(languages(), (each.last() for each in self.programs), strict=True))
        assert all(end.get("value") == {"n": 1} for end in ends.values()), ends


def test_unavailable_polls_are_repeated(futures):
    """A future survives polls that are UNAVAILABLE because of the rate limit."""

    def refusals():
        return futures.service.log_lines(event="call refused", method=GET)

    while len(refusals()) < len(futures.programs):
        with suppress(grpc.RpcError):
            futures.alice.get(futures.operations[0].id)
    assert {line["code"] for line in refusals()} == {"UNAVAILABLE"}
    futures.complete()


def test_killed_server(futures):
    """A future survives that the service is killed and started again."""
    futures.service.kill()
    futures.service.start()
    futures.complete()
