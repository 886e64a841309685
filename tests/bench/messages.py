"""Requests and replies, the same for every measured server."""

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
PRIORITY = 5
INITIAL_BACKOFF_SECONDS = 1
BACKOFF_MULTIPLIER = 2.0
MAX_BACKOFF_SECONDS = 300

ECHO_ID = f"op_{'e' * 24}"
"""The operation in every answer of the echo server."""

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
    """Encode a create with its own request_id."""
    return operation_service_pb2.CreateOperationRequest(
        request_id=request_id, function=FUNCTION
    ).SerializeToString()


def get_request(operation_id: str) -> bytes:
    """Encode a read."""
    return operation_service_pb2.GetOperationRequest(operation_id=operation_id).SerializeToString()


def start_request(operation_id: str) -> bytes:
    """Encode a start."""
    return worker_service_pb2.StartOperationRequest(operation_id=operation_id).SerializeToString()


def update_request(operation_id: str, progress: float = PROGRESS) -> bytes:
    """Encode a report of progress."""
    return worker_service_pb2.UpdateProgressRequest(
        operation_id=operation_id, progress=progress, message=PROGRESS_MESSAGE
    ).SerializeToString()


def stream_request(operation_id: str) -> bytes:
    """Encode the same report for a stream."""
    return worker_service_pb2.StreamProgressRequest(
        operation_id=operation_id, progress=PROGRESS, message=PROGRESS_MESSAGE
    ).SerializeToString()


def watch_request(operation_id: str) -> bytes:
    """Encode a watch of an operation, beginning with its present state."""
    return operation_service_pb2.WatchOperationRequest(
        operation_id=operation_id
    ).SerializeToString()


def sample_acknowledgement(operation_id: str) -> worker_service_pb2.StreamProgressResponse:
    """Return an acknowledgement of a commit."""
    return worker_service_pb2.StreamProgressResponse(
        acknowledgement=worker_service_pb2.Acknowledgement(
            operation_id=operation_id, revision=20, attempt=1
        )
    )


def complete_request(operation_id: str) -> bytes:
    """Encode a complete with a small result."""
    return worker_service_pb2.CompleteOperationRequest(
        operation_id=operation_id, result=_result()
    ).SerializeToString()


def _result() -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(struct_pb2.Value(string_value="sha256:2c26b46b68ffc68f"))
    return packed


def created_id(payload: bytes) -> str:
    """Return the id in the reply to a create."""
    reply = operation_service_pb2.CreateOperationResponse.FromString(payload)
    return reply.operation.id


def sample_operation() -> operation_pb2.Operation:
    """Return a PROCESSING operation as the service returns it to its owner."""
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
        priority=PRIORITY,
        next_step=operation_pb2.NEXT_STEP_END,
    )
    operation.ttl.seconds = TTL_SECONDS
    operation.retry_after.seconds = RETRY_AFTER_SECONDS
    operation.retry_policy.initial_backoff.seconds = INITIAL_BACKOFF_SECONDS
    operation.retry_policy.backoff_multiplier = BACKOFF_MULTIPLIER
    operation.retry_policy.max_backoff.seconds = MAX_BACKOFF_SECONDS
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
