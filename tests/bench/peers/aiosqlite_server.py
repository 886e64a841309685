"""The usual SQLite access from asyncio behind the same gRPC server: SQLAlchemy over aiosqlite.

Every call is one conditional statement and one commit, as durable as the service's (WAL,
`synchronous=FULL`). Nothing is batched: that is the difference to measure.

    python -m tests.bench.peers.aiosqlite_server PORT FILE
"""

import argparse
from datetime import UTC, datetime
from typing import Any

import grpc
import sqlalchemy as sa
import uvloop
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from milepost.gen.milepost.v1 import (
    operation_pb2,
    operation_service_pb2,
    operation_service_pb2_grpc,
    worker_service_pb2,
    worker_service_pb2_grpc,
)
from tests.bench.messages import OWNER
from tests.bench.peers.table import new_values, table


def open_engine(path: str) -> AsyncEngine:
    """Open an engine of one connection; with more, writers wait for each other's lock."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}", pool_size=1, max_overflow=0)

    @sa.event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.close()

    return engine


class Statements:
    """The four statements, built once."""

    def __init__(self) -> None:
        c = table.c
        mine = (c.id == sa.bindparam("key"), c.owner == OWNER)
        moved = sa.update(table).where(*mine, c.status == "PROCESSING").returning(table)
        self.insert = sa.insert(table).returning(table)
        self.get = sa.select(table).where(*mine)
        self.update = moved.where(
            sa.or_(c.progress.is_(None), c.progress <= sa.bindparam("to") + 0.001)
        ).values(
            progress=sa.func.max(sa.func.coalesce(c.progress, 0.0), sa.bindparam("to")),
            progress_message=sa.bindparam("words"),
            progress_time=sa.bindparam("now", type_=c.progress_time.type),
            revision=c.revision + 1,
        )
        self.complete = moved.values(
            status="COMPLETED",
            progress=1.0,
            result_type=sa.bindparam("kind"),
            result_value=sa.bindparam("content"),
            complete_time=sa.bindparam("now", type_=c.complete_time.type),
            revision=c.revision + 1,
        )


class Peer(
    operation_service_pb2_grpc.OperationServiceServicer,
    worker_service_pb2_grpc.WorkerServiceServicer,
):
    """The calls that are measured."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._statements = Statements()

    async def CreateOperation(  # noqa: N802 - named by the proto
        self, request: operation_service_pb2.CreateOperationRequest, context: Any
    ) -> operation_service_pb2.CreateOperationResponse:
        """Insert."""
        values = new_values(OWNER, request.function, request.request_id)
        operation = await self._run(self._statements.insert, values, context)
        return operation_service_pb2.CreateOperationResponse(operation=operation)

    async def GetOperation(  # noqa: N802 - named by the proto
        self, request: operation_service_pb2.GetOperationRequest, context: Any
    ) -> operation_service_pb2.GetOperationResponse:
        """Select."""
        async with self._engine.connect() as connection:
            found = await connection.execute(self._statements.get, {"key": request.operation_id})
            row = found.one_or_none()
        if row is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "none")
        return operation_service_pb2.GetOperationResponse(operation=_to_message(row))

    async def UpdateProgress(  # noqa: N802 - named by the proto
        self, request: worker_service_pb2.UpdateProgressRequest, context: Any
    ) -> worker_service_pb2.UpdateProgressResponse:
        """Update the progress while it is PROCESSING."""
        values = {
            "key": request.operation_id,
            "to": request.progress,
            "words": request.message,
            "now": datetime.now(UTC),
        }
        operation = await self._run(self._statements.update, values, context)
        return worker_service_pb2.UpdateProgressResponse(operation=operation)

    async def CompleteOperation(  # noqa: N802 - named by the proto
        self, request: worker_service_pb2.CompleteOperationRequest, context: Any
    ) -> worker_service_pb2.CompleteOperationResponse:
        """Update to COMPLETED."""
        values = {
            "key": request.operation_id,
            "kind": request.result.type_url,
            "content": request.result.value,
            "now": datetime.now(UTC),
        }
        operation = await self._run(self._statements.complete, values, context)
        return worker_service_pb2.CompleteOperationResponse(operation=operation)

    async def _run(
        self, statement: sa.Executable, values: dict[str, Any], context: Any
    ) -> operation_pb2.Operation:
        async with self._engine.begin() as connection:
            row = (await connection.execute(statement, values)).one_or_none()
        if row is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not allowed")
        return _to_message(row)


_SAME = ("id", "function", "owner", "revision", "attempt", "max_attempts")
_IF_ANY = ("progress", "progress_message")
_TIMES = ("progress_time", "create_time", "start_time", "complete_time", "expire_time")
_SPANS = ("ttl", "retry_after")


def _to_message(row: Any) -> operation_pb2.Operation:
    values = row._mapping
    operation = operation_pb2.Operation(
        status=operation_pb2.OperationStatus.Value(f"OPERATION_STATUS_{values['status']}"),
        **{name: values[name] for name in _SAME},
        **{name: values[name] for name in _IF_ANY if values[name] is not None},
        **{name: values[name] for name in (*_TIMES, *_SPANS) if values[name] is not None},
    )
    if values["result_type"] is not None:
        operation.result.type_url = values["result_type"]
        operation.result.value = values["result_value"]
    return operation


async def serve(port: int, path: str) -> None:
    """Answer calls until the process is ended."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    peer = Peer(open_engine(path))
    operation_service_pb2_grpc.add_OperationServiceServicer_to_server(peer, server)
    worker_service_pb2_grpc.add_WorkerServiceServicer_to_server(peer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Read the arguments, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("file")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.file))


if __name__ == "__main__":
    main()
