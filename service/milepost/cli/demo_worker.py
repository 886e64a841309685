"""A worker of the demo, in a process of its own: it hashes one folder, and ends.

``python -m milepost.cli.demo_worker`` is started by the demo only, which kills the first one.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from milepost.cli.connection import connected
from milepost.cli.errors import CommandError, report
from milepost.cli.folder_digests import hash_folder, scan

if TYPE_CHECKING:
    from milepost_client import Milepost, Work

HELD_AT: Final = 0.5
"""Share of the work at which the first worker waits to be killed."""
_MAX_HOLD_S: Final = 60.0
_MAX_SAVED_FILES: Final = 900
"""Files of a checkpoint: their digests must fit into 64 KiB."""


def main() -> None:
    """Do the work of one operation; the last line on standard error says why it failed."""
    logging.basicConfig(level=logging.CRITICAL)
    try:
        asyncio.run(_run(_arguments()))
    except CommandError as failure:
        report(failure, as_json=True)
        sys.exit(failure.exit_code)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--function", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--lease", type=float, required=True)
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--insecure", action="store_true")
    return parser.parse_args()


async def _run(arguments: argparse.Namespace) -> None:
    address, api_key = os.environ["MILEPOST_ADDRESS"], os.environ["MILEPOST_API_KEY"]
    async with connected(address, api_key, insecure=arguments.insecure) as client:
        await _work(client, arguments)


async def _work(client: Milepost, arguments: argparse.Namespace) -> None:
    from milepost_client import Worker

    async def hash_files(work: Work) -> dict[str, Any]:
        async def save(share: float, message: str, digests: list[str]) -> None:
            checkpoint = {"digests": digests[:_MAX_SAVED_FILES]}
            await work.progress(share, message, checkpoint=checkpoint)
            if arguments.hold and share >= HELD_AT:
                await work.flush()
                await asyncio.sleep(_MAX_HOLD_S)

        saved = work.resumed_from or {"digests": []}
        try:
            return await hash_folder(scan(arguments.folder), save, saved["digests"])
        finally:
            worker.stop()

    worker = Worker(
        client,
        {arguments.function: hash_files},
        concurrency=1,
        name=arguments.name,
        lease=arguments.lease,
    )
    await worker.run()


if __name__ == "__main__":
    main()
