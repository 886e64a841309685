"""A running testee: it performs commands concurrently, each answered by its id."""

import asyncio
import contextlib
import json
import os
from collections import deque
from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final, Self

from tests.conformance.languages import Language

MAX_LINE_BYTES: Final = 64 << 20
ANSWER_TIMEOUT_S: Final = 40.0
END_TIMEOUT_S: Final = 10.0
LOG_LINES: Final = 30


class Testee:
    """The testee of one language. Use it as an asynchronous context manager."""

    __test__ = False

    def __init__(self, language: Language) -> None:
        self.language = language
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._log: deque[str] = deque(maxlen=LOG_LINES)

    async def __aenter__(self) -> Self:
        """Start the program."""
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self.language.start,
            cwd=self.language.folder,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            limit=MAX_LINE_BYTES,
        )
        self._reading = [
            asyncio.create_task(self._read_answers()),
            asyncio.create_task(self._read_log()),
        ]
        return self

    async def __aexit__(self, *_error: object) -> None:
        """End the input, and wait for the end of the program; kill one that goes on."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), END_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await asyncio.gather(*self._reading)

    @property
    def log(self) -> str:
        """The last lines that the program has written to its standard error."""
        return "\n".join(self._log)

    def pin(self, core: int) -> None:
        """Let the program run on one core."""
        for thread in Path(f"/proc/{self._process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})

    async def perform(self, call: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the answer to one command, without its id.

        Raises:
            AssertionError: There is no answer.
        """
        number = next(self._numbers)
        assert self._process.stdin is not None
        self._waiting[number] = asyncio.get_running_loop().create_future()
        line = json.dumps({"id": number, "call": call, **arguments})
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(line.encode() + b"\n")
            await self._process.stdin.drain()
        try:
            return await asyncio.wait_for(self._waiting[number], ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise AssertionError(f"no answer in {ANSWER_TIMEOUT_S:.0f} s") from None
        finally:
            del self._waiting[number]

    async def _read_answers(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            answer = json.loads(line)
            waiting = self._waiting.get(answer.pop("id"))
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(AssertionError(f"the testee has ended:\n{self.log}"))

    async def _read_log(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            self._log.append(line.decode(errors="replace").rstrip())
