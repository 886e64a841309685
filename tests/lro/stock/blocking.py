"""The blocking client of google-api-core."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import grpc
from google.api_core import exceptions, operation, operations_v1
from google.longrunning import operations_proto_pb2
from google.protobuf import json_format, struct_pb2

from milepost_client.gen.milepost.v1 import operation_pb2


class Headers(grpc.UnaryUnaryClientInterceptor):
    """Interceptor that adds the same headers to every call."""

    def __init__(self, *headers: tuple[str, str]) -> None:
        self._headers = headers

    def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        """Add the headers to the metadata of one call."""
        metadata = [*(details.metadata or ()), *self._headers]
        return continuation(details._replace(metadata=metadata), request)


def operations_client(address: str, key: str, hold_s: int) -> operations_v1.OperationsClient:
    """Return the client of the service at an address."""
    channel = grpc.intercept_channel(
        grpc.insecure_channel(address),
        Headers(("authorization", f"Bearer {key}"), ("prefer", f"wait={hold_s}")),
    )
    return operations_v1.OperationsClient(channel)


def future_of(client: operations_v1.OperationsClient, name: str) -> Any:
    """Return the future of an operation, whose worker packs a Struct."""
    return operation.from_gapic(
        operations_proto_pb2.Operation(name=name),
        client,
        struct_pb2.Struct,
        metadata_type=operation_pb2.OperationMetadata,
    )


def state(future: Any) -> dict[str, object]:
    """Return the status and the progress of the last poll."""
    metadata = future.metadata
    status = operation_pb2.OperationStatus.Name(metadata.status)
    return {"status": status, "progress": metadata.progress}


def failure(error: Exception) -> dict[str, object]:
    """Return the code of gRPC, the message and the reason of the error of a future."""
    code = getattr(error, "grpc_status_code", None)
    return {
        "error": type(error).__name__,
        "code": code and code.value[0],
        "message": getattr(error, "message", str(error)),
    }


def wait(client: operations_v1.OperationsClient, names: str, *, cancel: bool) -> None:
    """Follow each operation to its end, in turn; cancel it on the way if that is asked for."""
    for name in names.split(","):
        future = future_of(client, name)
        if not future.done():
            show(state(future))
        if cancel:
            show({"cancel": future.cancel()})
        value = future.result(timeout=240)
        show({"value": json_format.MessageToDict(value), **state(future)})


def show(line: dict[str, object]) -> None:
    """Write one line."""
    print(json.dumps(line), flush=True)  # noqa: T201 - what the program is for


def main(address: str, verb: str, name: str = "") -> None:
    """Do what the verb says."""
    hold_s = int(os.environ["HOLD_S"])
    client = operations_client(address, os.environ["MILEPOST_API_KEY"], hold_s)
    verbs: dict[str, Callable[[], object]] = {
        "wait": lambda: wait(client, name, cancel=False),
        "cancel": lambda: wait(client, name, cancel=True),
        "delete": lambda: show({"deleted": client.delete_operation(name) is None}),
        "list": lambda: show(
            {"names": [found.name for found in client.list_operations("operations", "done=true")]}
        ),
    }
    try:
        verbs[verb]()
    except (exceptions.GoogleAPICallError, TypeError) as error:
        show(failure(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
