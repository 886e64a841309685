"""The usual way to build such a service: FastAPI and the SQLAlchemy ORM, check then act.

Load the row, look at its status in Python, set attributes, commit. Two callers who load at the same
time both succeed: a common defect, kept here on purpose. One uvicorn process runs with uvloop and
httptools.

    python -m tests.bench.peers.naive_fastapi PORT URL
"""

import argparse
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import registry

from tests.bench.messages import OWNER
from tests.bench.peers.table import new_values, table

POOL_SIZE = 20


class Operation:
    """A row of the table."""

    id: str
    status: str
    progress: float | None
    progress_message: str | None
    progress_time: datetime | None
    result_type: str | None
    result_value: bytes | None
    start_time: datetime | None
    complete_time: datetime | None
    revision: int
    attempt: int


registry().map_imperatively(Operation, table)


class Shown(BaseModel):
    """An operation as it is returned."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    function: str
    owner: str
    status: str
    progress: float | None
    progress_message: str | None
    progress_time: datetime | None
    create_time: datetime
    start_time: datetime | None
    complete_time: datetime | None
    expire_time: datetime
    revision: int
    attempt: int
    max_attempts: int


class Create(BaseModel):
    """The body of a create."""

    function: str
    request_id: str | None = None


class Progress(BaseModel):
    """The body of a report of progress."""

    progress: float
    message: str | None = None


class Complete(BaseModel):
    """The body of a complete."""

    result: str


app = FastAPI()


async def session_of(request: Request) -> AsyncIterator[AsyncSession]:
    """Open a session for one request."""
    async with request.app.state.sessions() as session:
        yield session


Session = Annotated[AsyncSession, Depends(session_of)]


async def load(session: AsyncSession, operation_id: str) -> Operation:
    """Return the operation, or raise 404."""
    operation = await session.get(Operation, operation_id)
    if operation is None:
        raise HTTPException(404)
    return operation


def check(operation: Operation, *allowed: str) -> None:
    """Refuse a transition that the loaded status does not allow; the status may be stale."""
    if operation.status not in allowed:
        raise HTTPException(409, f"is {operation.status}")


@app.post("/operations", status_code=201, response_model=Shown)
async def create(body: Create, session: Session) -> Any:
    """Create an operation."""
    operation = Operation()
    for name, value in new_values(OWNER, body.function, body.request_id).items():
        setattr(operation, name, value)
    session.add(operation)
    await session.commit()
    return operation


@app.get("/operations/{operation_id}", response_model=Shown)
async def get(operation_id: str, session: Session) -> Any:
    """Read an operation."""
    return await load(session, operation_id)


@app.post("/operations/{operation_id}/start", response_model=Shown)
async def start(operation_id: str, session: Session) -> Any:
    """Start the work."""
    operation = await load(session, operation_id)
    check(operation, "PENDING")
    operation.status = "PROCESSING"
    operation.start_time = datetime.now(UTC)
    operation.attempt += 1
    operation.revision += 1
    await session.commit()
    return operation


@app.post("/operations/{operation_id}/progress", response_model=Shown)
async def progress(operation_id: str, body: Progress, session: Session) -> Any:
    """Report progress."""
    operation = await load(session, operation_id)
    check(operation, "PENDING", "PROCESSING")
    if operation.progress is not None and body.progress < operation.progress:
        raise HTTPException(422, "progress may not go back")
    operation.progress = body.progress
    operation.progress_message = body.message
    operation.progress_time = datetime.now(UTC)
    operation.revision += 1
    await session.commit()
    return operation


@app.post("/operations/{operation_id}/complete", response_model=Shown)
async def complete(operation_id: str, body: Complete, session: Session) -> Any:
    """Complete the work."""
    operation = await load(session, operation_id)
    check(operation, "PROCESSING")
    operation.status = "COMPLETED"
    operation.progress = 1.0
    operation.result_type = "json"
    operation.result_value = body.result.encode()
    operation.complete_time = datetime.now(UTC)
    operation.revision += 1
    await session.commit()
    return operation


def main() -> None:
    """Read the arguments, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("url", help="postgresql+asyncpg://…")
    arguments = parser.parse_args()
    engine = create_async_engine(arguments.url, pool_size=POOL_SIZE, max_overflow=0)
    # Attributes stay readable after the commit: the peer is spared a read.
    app.state.sessions = async_sessionmaker(engine, expire_on_commit=False)
    uvicorn.run(
        app,
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
