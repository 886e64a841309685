"""Read one JSON command a line, perform it with the public client, write one JSON result a line."""

import asyncio
import json
import os
import sys
from typing import Any, Final

from testee.commands import Commands
from testee.values import Unsupported, encode_error

MAX_LINE_BYTES: Final = 64 << 20


async def main() -> None:
    """Perform commands concurrently until the input ends."""
    lines = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    commands = Commands()
    running: set[asyncio.Task[None]] = set()
    while line := await lines.readline():
        task = asyncio.create_task(_answer(commands, json.loads(line)))
        running.add(task)
        task.add_done_callback(running.discard)
    os._exit(0)  # whatever still runs


async def _answer(commands: Commands, command: dict[str, Any]) -> None:
    try:
        answer: dict[str, Any] = {"ok": await commands.perform(command)}
    except Unsupported:
        answer = {"unsupported": True}
    except Exception as problem:  # noqa: BLE001 - the suite compares every error
        answer = {"error": encode_error(problem)}
    sys.stdout.write(json.dumps({"id": command.get("id"), **answer}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
