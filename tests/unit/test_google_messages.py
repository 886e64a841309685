"""The codes of failed operations for google.longrunning clients."""

import pytest
from google.rpc import code_pb2

from milepost.api.google_messages import google_code
from milepost.domain.operation import OperationError


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("EXPIRED", code_pb2.DEADLINE_EXCEEDED),
        ("RUN_TIMEOUT", code_pb2.DEADLINE_EXCEEDED),
        ("QUEUE_TIMEOUT", code_pb2.DEADLINE_EXCEEDED),
        ("LEASE_LOST", code_pb2.ABORTED),
        ("FAILED_PRECONDITION", code_pb2.FAILED_PRECONDITION),
        ("CANCELLED", code_pb2.CANCELLED),
        ("CODEC_UNSUPPORTED", code_pb2.UNKNOWN),
        ("UNKNOWN", code_pb2.UNKNOWN),
        ("OK", code_pb2.UNKNOWN),
        ("ok", code_pb2.UNKNOWN),
        ("0", code_pb2.UNKNOWN),
    ],
)
def test_codes_are_mapped_by_name(code, expected):
    """A code is that of the same name, or one for an error of the service, and never 0."""
    assert google_code(OperationError(code=code, message="it broke")) == expected
