"""Every measurement at the limits, one after the other, in one table: `python -m tests.scale`.

A measurement is a module of this package with `figures()`, which returns `Figure`s.
"""

import argparse
import importlib
import pkgutil
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Console

import tests.scale
from tests.scale.figures import Figure, table

NOT_MEASUREMENTS: Final = ("test_", "__", "figures", "cpu", "event_load", "stream_load")
"""Beginnings of the names of modules that measure nothing by themselves."""
MAX_MINUTES: Final = 15.0
"""Time for all measurements together."""


def measurements() -> list[str]:
    """Return the names of the modules that measure, in alphabetical order."""
    names = (module.name for module in pkgutil.iter_modules(tests.scale.__path__))
    return sorted(name for name in names if not name.startswith(NOT_MEASUREMENTS))


def measure(name: str) -> Iterator[Figure]:
    """Return the figures of a module, and how long it took."""
    print(f"measuring {name}", flush=True)
    begun = time.monotonic()
    module = importlib.import_module(f"tests.scale.{name}")
    for figure in module.figures():
        yield figure._replace(name=f"{name}: {figure.name}")
    yield Figure(f"{name}: duration of the measurement", time.monotonic() - begun, "s")


def measure_all(names: Sequence[str]) -> Iterator[Figure]:
    """Measure one module after the other."""
    begun = time.monotonic()
    for name in names:
        yield from measure(name)
    minutes = (time.monotonic() - begun) / 60
    yield Figure("duration of all measurements", minutes, "min", at_most=MAX_MINUTES)


def main() -> int:
    """Measure, print one table, and return 1 if a bound is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    choices = measurements()
    parser.add_argument("only", nargs="*", metavar="NAME", help=f"some of {', '.join(choices)}")
    only = parser.parse_args().only
    if unknown := set(only) - set(choices):
        parser.error(f"there are only {', '.join(choices)}, not {', '.join(sorted(unknown))}")
    found = list(measure_all([name for name in choices if not only or name in only]))
    Console(width=120).print(table("the service at its limits", found))
    return 1 if any(figure.is_missed for figure in found) else 0


if __name__ == "__main__":
    sys.exit(main())
