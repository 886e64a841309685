"""Report what a server of google.longrunning does: `python -m tests.lro HOST:PORT`.

Operations start and end by commands of yours: the one that starts an operation prints its name, and
the others find the name in $NAME. Clauses that need a command which is missing are not tried.

    python -m tests.lro localhost:9000 --start ./start --complete './end ok' --fail './end broken'
    python -m tests.lro localhost:7450 --milepost    # with CALLER_KEY and WORKER_KEY
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import grpc

from tests.lro.milepost import milepost
from tests.lro.report import DIFFERS, findings
from tests.lro.target import CommandFailed, Target


def arguments(words: list[str]) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.lro",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", help="host and port of the server")
    parser.add_argument("--milepost", action="store_true", help="start and end operations itself")
    parser.add_argument("--start", metavar="COMMAND", help="starts an operation, prints its name")
    parser.add_argument("--complete", metavar="COMMAND", help="completes the operation $NAME")
    parser.add_argument("--fail", metavar="COMMAND", help="lets the operation $NAME fail")
    parser.add_argument(
        "--parent", default="operations", help="parent of the operations, for lists"
    )
    parser.add_argument("--header", action="append", default=[], metavar="NAME:VALUE")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="use TLS; trust these certificates")
    found = parser.parse_args(words)
    if not found.milepost and not found.start:
        parser.error("--start or --milepost is needed")
    return found


def run(command: str, name: str = "") -> str:
    """Run a command about an operation and return its output."""
    done = subprocess.run(  # noqa: S602 - the command of the one who calls
        command,
        shell=True,
        env={**os.environ, "NAME": name},
        check=False,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise CommandFailed(f"exit code {done.returncode}: {command}")
    return done.stdout.strip()


def target_of(given: argparse.Namespace) -> Target:
    """Return the target of the arguments."""
    channel = (
        grpc.secure_channel(given.target, grpc.ssl_channel_credentials(given.ca.read_bytes()))
        if given.ca
        else grpc.insecure_channel(given.target)
    )
    if given.milepost:
        return milepost(channel, os.environ["CALLER_KEY"], os.environ["WORKER_KEY"])
    return Target(
        channel=channel,
        headers=[(name, value) for name, _, value in (h.partition(":") for h in given.header)],
        parent=given.parent,
        start=lambda: run(given.start),
        complete=given.complete and (lambda name: run(given.complete, name)),
        fail=given.fail and (lambda name: run(given.fail, name)),
    )


def main(words: list[str]) -> int:
    """Print the report; return 1 if a clause does not hold."""
    differs = False
    for finding in findings(target_of(arguments(words))):
        print(finding, flush=True)  # noqa: T201 - the report
        differs = differs or finding.result == DIFFERS
    return int(differs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
