"""``demo``: one operation from its creation to its end, with real work."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

import milepost
from milepost.cli.connection import InsecureOption, KeyOption, address_of, connected
from milepost.cli.errors import CommandError, ExitCode, wrong_usage
from milepost.cli.output import (
    Output,
    OutputOption,
    print_facts,
    print_json,
    print_line,
    size_text,
)
from milepost.cli.temporary_service import LEASE_S
from milepost.domain.operation import Role

if TYPE_CHECKING:
    from milepost.cli.demo_workers import DemoWorkers
    from milepost.cli.display import Show
    from milepost.cli.folder_digests import Folder
    from milepost.cli.temporary_service import TemporaryService
    from milepost_client import Json, Milepost, Operation, OperationEvent

FUNCTION: Final = "demo.hash-folder"
GRANT: Final = "demo.*"
CALLER, WORKER = "demo-caller", "demo-worker"
_MIN_LEASE_S: Final = 5.0
"""The shortest lease of a service with default settings."""

_KEPT: Final = "\nThe service runs until Ctrl-C."
_STOPPED: Final = """
The service of the demo and its store are removed. With `milepost demo --keep` they stay until
Ctrl-C, and you can paste these commands into another terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The service that the demo uses, and the keys of its caller and its worker."""

    address: str
    caller_key: str
    worker_key: str
    function: str = FUNCTION
    lease_s: float = LEASE_S
    """The time after which the second worker gets the operation."""
    insecure: bool = False
    service: TemporaryService | None = None
    """The service that the demo started; None if it uses a running one."""


def demo(
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER]",
            help="Folder whose files are hashed; by default the code of Milepost.",
            show_default=False,
        ),
    ] = None,
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the service of the demo running until Ctrl-C.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            parser=address_of,
            metavar="HOST:PORT",
            help="Use the service at this address, with your API key, instead of a temporary one.",
        ),
    ] = None,
    api_key: KeyOption,
    insecure: InsecureOption = False,
    output: OutputOption = Output.TEXT,
) -> None:
    """Watch one operation: a caller creates it, and workers hash a folder.

    The first worker is killed in the middle of the work, and the second one goes on from its
    checkpoint. The demo starts a service on a free port and a temporary store, and removes both at
    the end. With --address it uses a running service instead.
    """
    from milepost.cli import tour
    from milepost.cli.watch import require_completed

    path = folder if folder is not None else Path(milepost.__file__).parent
    found = _scan(path.resolve())
    if output is Output.TEXT:
        print_line(
            f"Milepost demo: {len(found.files)} files, {size_text(found.size)}, {found.path}"
        )
    with _stage(address, api_key, insecure=insecure) as stage:
        operation, events = asyncio.run(_run(stage, found, output))
        kept = stage.service if keep else None
        if output is Output.JSON:
            print_json(_document(stage, operation, events, kept=kept is not None))
        else:
            tour.print_history(events)
            tour.print_result(operation, found)
            tour.print_calls(
                operation.id, stage.address, stage.caller_key if kept else None, insecure=insecure
            )
            if stage.service:
                print_line(_KEPT if kept else _STOPPED)
        require_completed(operation)
        if kept:
            _wait(kept)


def _scan(path: Path) -> Folder:
    from milepost.cli.folder_digests import scan

    try:
        found = scan(path)
    except OSError as error:
        raise wrong_usage(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if not found.files:
        raise wrong_usage(f"{path}: the folder has no files")
    return found


@contextlib.contextmanager
def _stage(address: str | None, api_key: str | None, *, insecure: bool) -> Iterator[Stage]:
    """Use the service at the address or start one, and provide keys of a caller and a worker."""
    if address is not None:
        if not api_key:
            raise wrong_usage(
                f"--address needs an API key of the service at {address} (--api-key or"
                f" MILEPOST_API_KEY) with the roles CALLER and WORKER and --function '{GRANT}'",
                reason="API_KEY_NEEDED",
            )
        yield Stage(
            address=address,
            caller_key=api_key,
            worker_key=api_key,
            function=f"{FUNCTION}.{uuid.uuid4().hex[:8]}",  # its workers get no other operation
            lease_s=_MIN_LEASE_S,
            insecure=insecure,
        )
        return
    from milepost.cli.temporary_service import temporary_service

    with temporary_service() as service:
        from milepost.main.api_keys import create_key  # slow: imported while the service starts

        service.wait_until_listening()
        url = service.database_url
        yield Stage(
            address=service.address,
            caller_key=create_key(url, subject=CALLER, roles=[Role.CALLER], functions=[])[1],
            worker_key=create_key(url, subject=WORKER, roles=[Role.WORKER], functions=[GRANT])[1],
            service=service,
        )


async def _run(
    stage: Stage, folder: Folder, output: Output
) -> tuple[Operation, list[OperationEvent]]:
    """Create the operation, run its workers, and return its end and its history."""
    from milepost.cli.demo_workers import DemoWorkers

    workers = DemoWorkers(
        address=stage.address,
        api_key=stage.worker_key,
        insecure=stage.insecure,
        folder=folder.path,
        function=stage.function,
        lease_s=stage.lease_s,
        announce=print_line if output is Output.TEXT else lambda _: None,
    )
    async with connected(stage.address, stage.caller_key, insecure=stage.insecure) as caller:
        metadata: dict[str, Json] = {"folder": _sendable(folder.path), "files": len(folder.files)}
        operation = await caller.create(
            stage.function, version=milepost.__version__, metadata=metadata
        )
        if output is Output.TEXT:
            _introduce(stage, operation)
        with workers.running():
            ended = await _watch(caller, operation.id, workers, output)
        return ended, [event async for event in caller.events(operation.id)]


def _introduce(stage: Stage, operation: Operation) -> None:
    started = "started, on a temporary store" if stage.service else "found"
    print_facts(
        [
            ("service", f"{stage.address}, {started}"),
            ("caller", f"created {operation.id} and watches it"),
            ("workers", f"claim {stage.function}; each report saves the digests as a checkpoint"),
        ]
    )


async def _watch(
    caller: Milepost, operation_id: str, workers: DemoWorkers, output: Output
) -> Operation:
    """Watch the operation to its end, or raise the error of a worker that failed to work."""
    from milepost.cli.display import live
    from milepost.cli.watch import follow

    display: AbstractContextManager[Show] = nullcontext(lambda _: None)
    if output is Output.TEXT:
        display = live()
    watcher = asyncio.ensure_future(follow(caller, operation_id, workers.observing(display)))
    failure = asyncio.ensure_future(workers.failure())
    try:
        await asyncio.wait({watcher, failure}, return_when=asyncio.FIRST_COMPLETED)
        if not watcher.done():
            await failure
        return await watcher
    finally:
        failure.cancel()
        watcher.cancel()
        await asyncio.gather(failure, watcher, return_exceptions=True)


def _sendable(path: Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


def _wait(service: TemporaryService) -> None:
    """Wait for Ctrl-C or a termination signal."""
    with contextlib.suppress(KeyboardInterrupt):
        code = service.process.wait()
        raise CommandError(
            f"the service of the demo exited with {code}",
            reason="SERVICE_ENDED",
            code="UNAVAILABLE",
            exit_code=ExitCode.UNAVAILABLE,
        )


def _document(
    stage: Stage, operation: Operation, events: list[OperationEvent], *, kept: bool
) -> dict[str, Any]:
    from milepost.cli.display import document
    from milepost.cli.history import event_document

    access = {"address": stage.address, "api_key": stage.caller_key}
    history = [event_document(event) for event in events]
    return {**document(operation), "events": history, **({"service": access} if kept else {})}
