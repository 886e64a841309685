"""What is sent and what comes back: the same requests and replies for everyone who is measured."""

from google.protobuf import any_pb2, struct_pb2
from google.protobuf.message import Message

from milepost.gen.milepost.v1 import operation_pb2, operation_service_pb2, worker_service_pb2
from tests.bench.frames import request_head

FUNCTION = "bench.work"
OWNER = "bench"
PROGRESS_MESSAGE = "encoding the second pass"
PROGRESS = 0.5
CREATE_TIME = 1_700_000_000
TTL_SECONDS = 86_400
RETRY_AFTER_SECONDS = 5
MAX_ATTEMPTS = 3

ECHO_ID = f"op_{'e' * 24}"
"""The operation that the echo server always answers with."""

METHODS = {
    "create": "/milepost.v1.OperationService/CreateOperation",
    "get": "/milepost.v1.OperationService/GetOperation",
    "start": "/milepost.v1.WorkerService/StartOperation",
    "update": "/milepost.v1.WorkerService/UpdateProgress",
    "complete": "/milepost.v1.WorkerService/CompleteOperation",
    "stream": "/milepost.v1.WorkerService/StreamProgress",
    "watch": "/milepost.v1.OperationService/WatchOperation",
}


class Heads:
    """The encoded headers of each method, with the caller's credential."""

    def __init__(self, secret: str) -> None:
        metadata = (("user-agent", "milepost-bench"), ("authorization", f"Bearer {secret}"))
        encoded = {name: request_head(path, metadata) for name, path in METHODS.items()}
        self.create = encoded["create"]
        self.get = encoded["get"]
        self.start = encoded["start"]
        self.update = encoded["update"]
        self.complete = encoded["complete"]
        self.stream = encoded["stream"]
        self.watch = encoded["watch"]


def create_request(request_id: str) -> bytes:
    """A create with a request_id of its own."""
    return operation_service_pb2.CreateOperationRequest(
        request_id=request_id, function=FUNCTION
    ).SerializeToString()


def get_request(operation_id: str) -> bytes:
    """A read."""
    return operation_service_pb2.GetOperationRequest(operation_id=operation_id).SerializeToString()


def start_request(operation_id: str) -> bytes:
    """The start of the work."""
    return worker_service_pb2.StartOperationRequest(operation_id=operation_id).SerializeToString()


def update_request(operation_id: str, progress: float = PROGRESS) -> bytes:
    """A report of progress."""
    return worker_service_pb2.UpdateProgressRequest(
        operation_id=operation_id, progress=progress, message=PROGRESS_MESSAGE
    ).SerializeToString()


def stream_request(operation_id: str) -> bytes:
    """The same report, on a stream."""
    return worker_service_pb2.StreamProgressRequest(
        operation_id=operation_id, progress=PROGRESS, message=PROGRESS_MESSAGE
    ).SerializeToString()


def watch_request(operation_id: str) -> bytes:
    """Everything that becomes of an operation, beginning with how it stands."""
    return operation_service_pb2.WatchOperationRequest(
        operation_id=operation_id
    ).SerializeToString()


def sample_acknowledgement(operation_id: str) -> worker_service_pb2.StreamProgressResponse:
    """What a stream is told of a commit."""
    return worker_service_pb2.StreamProgressResponse(
        acknowledgement=worker_service_pb2.Acknowledgement(
            operation_id=operation_id, revision=20, attempt=1
        )
    )


def complete_request(operation_id: str) -> bytes:
    """The end of the work, with a small result."""
    return worker_service_pb2.CompleteOperationRequest(
        operation_id=operation_id, result=_result()
    ).SerializeToString()


def _result() -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(struct_pb2.Value(string_value="sha256:2c26b46b68ffc68f"))
    return packed


def created_id(payload: bytes) -> str:
    """The id that a create was answered with."""
    reply = operation_service_pb2.CreateOperationResponse.FromString(payload)
    return reply.operation.id


def sample_operation() -> operation_pb2.Operation:
    """An operation that is being worked on, as the service shows it to its owner."""
    operation = operation_pb2.Operation(
        id=ECHO_ID,
        function=FUNCTION,
        owner=OWNER,
        status=operation_pb2.OPERATION_STATUS_PROCESSING,
        progress=PROGRESS,
        progress_message=PROGRESS_MESSAGE,
        revision=20,
        attempt=1,
        max_attempts=MAX_ATTEMPTS,
        next_step=operation_pb2.NEXT_STEP_END,
    )
    operation.ttl.seconds = TTL_SECONDS
    operation.retry_after.seconds = RETRY_AFTER_SECONDS
    for time in (
        "progress_time",
        "create_time",
        "start_time",
        "expire_time",
        "next_step_deadline",
    ):
        _set_time(getattr(operation, time))
    return operation


def _set_time(time: Message) -> None:
    time.MergeFrom(type(time)(seconds=CREATE_TIME, nanos=123_456_000))
