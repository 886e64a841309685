"""``python -m tests.faults.proof --seed N --lives N``: one run, whose seed can be replayed."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tests.faults.proof import sizes
from tests.faults.proof.cluster import fresh_database
from tests.faults.proof.hunts import HUNTS, SERVER_SETTINGS
from tests.faults.proof.nemesis import Fault
from tests.faults.proof.run import SETTLE_S, Report, run


async def _run(arguments: argparse.Namespace, folder: Path) -> Report:
    size = sizes.of(arguments.lives, arguments.kills, arguments.database_kills)
    settings: Mapping[str, str] = {}
    if arguments.bug is not None:
        arguments.settle = HUNTS[arguments.bug].size.settle_s
        size = HUNTS[arguments.bug].size
        settings = SERVER_SETTINGS
    size = replace(size, settle_s=arguments.settle)
    with fresh_database(size, settings) as database:
        if database.disk is None and size.faults.get(Fault.FILL_DISK):
            print("UNTESTED: a full disk, because this process may not mount one")
            size = sizes.without(size, Fault.FILL_DISK)
        return await run(arguments.seed, size, database, folder, bug=arguments.bug)


def main() -> int:
    """Run once, print the report, and return 1 after a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.proof", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of lives and faults")
    parser.add_argument("--lives", type=int, default=sizes.SMALL_LIVES)
    parser.add_argument("--kills", type=int, help="of replicas; by default one for 100 lives")
    parser.add_argument("--database-kills", type=int, help="by default one for 500 lives")
    parser.add_argument("--bug", choices=sorted(HUNTS), help="seed this bug, and hunt it")
    parser.add_argument("--settle", type=float, default=SETTLE_S, help="seconds to wait for ends")
    parser.add_argument("--history", type=Path, help="file for the history, as JSON lines")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asyncio.run(_run(arguments, Path(folder)))
    for planned in report.planned:
        print(planned)
    print(report)
    if arguments.history is not None:
        report.history.save(arguments.history)
    return bool(report.violations)


if __name__ == "__main__":
    sys.exit(main())
