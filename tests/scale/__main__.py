"""Every measurement at the limits, one after the other, in one table: `python -m tests.scale`.

A measurement is a module of this package with `figures()`, which returns `Figure`s. A module that
has only a command, and a drill of the tests, is run as a command: its figure is whether it passed.
"""

import argparse
import importlib
import pkgutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console

import tests.scale
from tests.scale.figures import Figure, table

NOT_MEASUREMENTS: Final = ("test_", "__", "figures", "cpu", "event_load", "stream_load")
"""Beginnings of the names of modules that measure nothing by themselves."""
DRILLS: Final = ("tests/faults/test_hanging_hosts.py",)
DRILL: Final = (sys.executable, "-m", "pytest", "-q", "-m", "faults", "--timeout", "600")


def measurements() -> list[str]:
    """Return the names of the modules that measure, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(tests.scale.__path__))
    return sorted(name for name in names if not name.startswith(NOT_MEASUREMENTS))


def measure(name: str) -> list[Figure]:
    """Return the figures of a module."""
    module = importlib.import_module(f"tests.scale.{name}")
    if hasattr(module, "figures"):
        return [each._replace(name=f"{name}: {each.name}") for each in module.figures()]
    return [_passed(name, (sys.executable, "-m", module.__name__))]


def drill(path: str) -> list[Figure]:
    """Return whether a drill of the tests passes."""
    return [_passed(path, (*DRILL, path))]


def _passed(name: str, command: Sequence[str]) -> Figure:
    failed = subprocess.run(command, check=False).returncode != 0
    return Figure(f"{name}: failed", float(failed), at_most=0)


def measure_all(only: Sequence[str]) -> Iterator[Figure]:
    """Run what is selected; each ends with a figure of its duration."""
    runs = [(name, measure) for name in measurements()] + [(path, drill) for path in DRILLS]
    for name, run in runs:
        if only and name not in only:
            continue
        print(f"measuring {name}", flush=True)
        begun = time.monotonic()
        yield from run(name)
        yield Figure(f"{name}: duration of the measurement", time.monotonic() - begun, "s")


def main() -> int:
    """Measure, print one table, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    choices = [*measurements(), *DRILLS]
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"some of {', '.join(choices)}")
    only = parser.parse_args().only
    if unknown := set(only) - set(choices):
        parser.error(f"there are only {', '.join(choices)}, not {', '.join(sorted(unknown))}")
    found = list(measure_all(only))
    Console(width=120).print(table("the service at its limits", found))
    return 1 if any(figure.is_missed for figure in found) else 0


if __name__ == "__main__":
    sys.exit(main())
