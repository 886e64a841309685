"""Refused calls, and all details of their refusals."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tests.canaries import CANARIES


class Refusal:
    """A refused call, with everything that its caller gets."""

    error: Any
    """The error of grpc or of grpc.aio."""

    @cached_property
    def code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        code: grpc.StatusCode = self.error.code()
        return code

    @cached_property
    def message(self) -> str:
        """The status message."""
        return self.error.details() or ""

    @cached_property
    def status(self) -> status_pb2.Status:
        """The status with its details."""
        status: status_pb2.Status | None = rpc_status.from_call(self.error)
        assert status is not None, f"without details: {self.code} {self.message}"
        assert (status.code, status.message) == (self.code.value[0], self.message)
        return status

    @property
    def trailers(self) -> list[tuple[str, str | bytes]]:
        """The trailing metadata."""
        return [(key, value) for key, value in self.error.trailing_metadata() or ()]

    def detail(self, kind: type[Any]) -> Any:
        """Return the only detail of this type."""
        (packed,) = (detail for detail in self.status.details if detail.Is(kind.DESCRIPTOR))
        found = kind()
        packed.Unpack(found)
        return found

    @property
    def reason(self) -> str:
        """The reason, on which programs decide."""
        info = self.detail(error_details_pb2.ErrorInfo)
        assert info.domain == "milepost"
        return str(info.reason)

    @property
    def facts(self) -> dict[str, str]:
        """The dynamic values of the message."""
        return dict(self.detail(error_details_pb2.ErrorInfo).metadata)

    @property
    def retry_after(self) -> float:
        """The seconds to wait before the next try."""
        delay = self.detail(error_details_pb2.RetryInfo).retry_delay
        return float(delay.seconds + delay.nanos / 1e9)

    @property
    def violations(self) -> dict[str, str]:
        """The description of the violation of each field."""
        bad = self.detail(error_details_pb2.BadRequest)
        return {violation.field: violation.description for violation in bad.field_violations}


@contextmanager
def refused(code: grpc.StatusCode | None, reason: str | None = None) -> Iterator[Refusal]:
    """Assert that the call inside is refused with `code` and, where given, `reason`."""
    refusal = Refusal()
    try:
        yield refusal
    except grpc.RpcError as error:
        refusal.error = error
        CANARIES.saw_error(error)
        assert code in {None, refusal.code}, refusal.message
        assert reason in {None, refusal.reason}
    else:
        raise AssertionError(f"not refused with {code}")
