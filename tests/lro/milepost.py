"""How operations start and end at Milepost, as a target."""

from typing import Final

import grpc
from google.protobuf import any_pb2, struct_pb2

from milepost_client.gen.milepost.v1 import (
    operation_pb2,
    operation_service_pb2,
    operation_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from tests.lro.target import Target

FUNCTION: Final = "lro.conformance"


def milepost(channel: grpc.Channel, caller_key: str, worker_key: str) -> Target:
    """Return the target behind a channel, with the keys of a caller and of a worker."""
    calls = operation_service_pb2_grpc.OperationServiceStub(channel)
    work = worker_service_pb2_grpc.WorkerServiceStub(channel)
    caller = (("authorization", f"Bearer {caller_key}"),)
    worker = (("authorization", f"Bearer {worker_key}"),)

    def start() -> str:
        request = operation_service_pb2.CreateOperationRequest(function=FUNCTION)
        return f"operations/{calls.CreateOperation(request, metadata=caller).operation.id}"

    def started(name: str) -> str:
        operation_id = name.partition("/")[2]
        request = worker_service_pb2.StartOperationRequest(operation_id=operation_id)
        work.StartOperation(request, metadata=worker)
        return operation_id

    def complete(name: str) -> None:
        result = any_pb2.Any()
        result.Pack(struct_pb2.Struct())
        request = worker_service_pb2.CompleteOperationRequest(
            operation_id=started(name), result=result
        )
        work.CompleteOperation(request, metadata=worker)

    def fail(name: str) -> None:
        error = operation_pb2.OperationError(code="BROKEN", message="it broke")
        request = worker_service_pb2.FailOperationRequest(
            operation_id=started(name), errors=[error]
        )
        work.FailOperation(request, metadata=worker)

    return Target(channel=channel, headers=caller, start=start, complete=complete, fail=fail)
