"""A replica under test: ``python -m tests.faults.proof.replica --clock FILE [--bug NAME] serve``.

It is the service as it is, but for its local clock, which FILE moves by some seconds, and for the
one seeded bug that it may have.
"""

import argparse
import importlib
import inspect
import pkgutil
import sys
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Final, Self

import milepost
from tests.faults.proof import seeded_bugs

_PARTS: Final = ("api", "access", "domain", "main", "rpc", "storage", "tracking", "web", "webhooks")
_READS: Final = "datetime.now("


def move_clock(file: Path) -> None:
    """Let every module of the service read a local clock that is ahead by the seconds in a file.

    The file may change at any time. Only the modules of Milepost are changed: in a library, half of
    whose code is C, the two halves would read different clocks.
    """

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            ahead = float(file.read_text(encoding="ascii"))
            return cls.fromtimestamp(datetime.now(tz).timestamp() + ahead, tz)

    for name in _modules():
        module = importlib.import_module(name)
        if _READS in inspect.getsource(module):
            module.datetime = Moved  # type: ignore[attr-defined]


def _modules() -> list[str]:
    found = pkgutil.walk_packages(milepost.__path__, "milepost.")
    return [each.name for each in found if each.name.split(".")[1] in _PARTS]


def main() -> None:
    """Run the command of the service."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clock", type=Path, required=True)
    parser.add_argument("--bug")
    known, command = parser.parse_known_args()
    if known.bug is not None:
        seeded_bugs.BUGS[known.bug].seed(float(known.clock.read_text(encoding="ascii")))
    move_clock(known.clock)
    sys.argv[1:] = command
    from milepost.cli import app  # noqa: PLC0415 - after the clock and the bug

    app()


if __name__ == "__main__":
    main()
