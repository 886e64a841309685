"""The command: `python -m tests.bench`.

Exits with 1 when the run is void: the ratio of the null pair is outside its bounds, a call failed,
or the database does not hold exactly the acknowledged transitions. A missed target is a finding,
not a failure.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from tests.bench import plan, rounds
from tests.bench.cores import LOAD_CORE, SERVER_CORE, running_on
from tests.bench.databases import filesystem
from tests.bench.fleet import Fleet
from tests.bench.report import Report
from tests.bench.servers import ROOT

ROUNDS = 7
SECONDS = 0.5
WIDTH = 110
"""Width of the tables in columns without a terminal."""
BUILD = ROOT / "build"


def main() -> int:
    """Run the comparisons, print the report and write it as JSON."""
    arguments = _parse()
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    begun = time.monotonic()
    BUILD.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=BUILD))
    try:
        with Fleet(folder) as fleet, running_on(LOAD_CORE), console.status("starting") as status:
            blocks = fleet.blocks(
                [each for each in plan.COMPARISONS if _selected(each.name, arguments.only)]
            )
            disks = {filesystem(folder), filesystem(fleet.postgres_folder or folder)}
            results = rounds.run(blocks, arguments.rounds, arguments.seconds, status.update)
    finally:
        shutil.rmtree(folder)
    settings = {
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "server_core": SERVER_CORE,
        "load_core": LOAD_CORE,
        "file_systems": sorted(disks),
    }
    report = Report(results=results, settings=settings)
    report.print(console)
    report.write(arguments.json)
    console.print(f"{arguments.json}, after {time.monotonic() - begun:.0f} s", highlight=False)
    return 1 if report.faults() else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="7 or more for ratios to trust")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of one measurement")
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="blocks whose name contains the text"
    )
    parser.add_argument("--json", type=Path, default=BUILD / "bench.json", metavar="PATH")
    arguments = parser.parse_args()
    names = [each.name for each in plan.COMPARISONS]
    if not any(_selected(name, arguments.only) for name in names):
        parser.error(f"there are only these blocks: {', '.join(names)}")
    return arguments


def _selected(name: str, only: list[str] | None) -> bool:
    return only is None or any(text in name for text in only)


if __name__ == "__main__":
    sys.exit(main())
