"""Errors: whatever happens inside becomes one status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Never

import grpc
from grpc_status import rpc_status

from milepost import telemetry
from milepost.api.errors import defect, log_refusal, status_of
from milepost.api.logged_ids import logged_ids
from milepost.domain.errors import MilepostError

if TYPE_CHECKING:
    from google.rpc import status_pb2

    from milepost.rpc.call import Context, RpcCall
    from milepost.rpc.interceptors.chain import CallNext


class Errors:
    """Turns domain errors into statuses, and anything else into INTERNAL with a trace id."""

    async def intercept(
        self, call_next: CallNext, call: RpcCall, request: Any, context: Context
    ) -> Any:
        """Answer the call, whatever happens inside. Cancellation passes untouched."""
        try:
            return await call_next(call, request, context)
        except MilepostError as error:
            log_refusal(error, call, request)
            await _abort(context, status_of(error, call.method))
        except (grpc.aio.AbortError, grpc.aio.BaseError):
            raise
        except Exception as error:  # noqa: BLE001 - the one place where nothing may get through
            trace_id = telemetry.current_trace_id()
            telemetry.record_defect(error, call.authenticated, logged_ids(request))
            await _abort(context, defect(trace_id).status())


async def abort(context: Context, error: MilepostError) -> Never:
    """End a call with the status of an error."""
    await _abort(context, status_of(error))


async def _abort(context: Context, status: status_pb2.Status) -> Never:
    await context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError  # abort always raises
