"""Output at the end of the demo: the stored result, and commands to read it yourself."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from milepost.cli.output import print_facts, print_line, print_table
from milepost.config import is_loopback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from milepost.cli.folder_digests import Folder
    from milepost_client import Operation, OperationEvent

_DIGITS: Final = 16


def print_history(events: Sequence[OperationEvent]) -> None:
    """Write every change of status: the attempt of the killed worker, and the one that went on."""
    from milepost.cli.history import print_events

    print_line("\nThe history, as the caller reads it")
    print_events(events)


def print_result(operation: Operation, folder: Folder) -> None:
    """Write the result as the caller read it."""
    if not isinstance(operation.result, dict):
        return
    result = operation.result
    unreadable = result["unreadable"]
    print_line("\nThe stored result")
    print_facts(
        [
            ("  files", str(result["files"]) + (f", {unreadable} unreadable" * bool(unreadable))),
            ("  of these", f"{result['files_of_checkpoint']} from the checkpoint"),
            ("  bytes", str(result["bytes"])),
            ("  sha256", result["sha256"]),
        ]
    )
    print_line("\nThe largest files")
    print_table(
        ("SHA-256", "BYTES", "FILE"),
        [
            (f"{entry['sha256'][:_DIGITS]}…", str(entry["bytes"]), entry["path"])
            for entry in result["largest"]
        ],
    )
    print_line(f"""
Check it with the system tools
  cd {shlex.quote(str(folder.path))}
  find . -name __pycache__ -prune -o -type f -printf '%P\\n' | LC_ALL=C sort |
    xargs -d '\\n' sha256sum | sha256sum""")


def print_calls(operation_id: str, address: str, api_key: str | None, *, insecure: bool) -> None:
    """Write commands that read the operation from a shell, grpcurl and Python."""
    plain = is_loopback(address) or insecure
    key = f"\n  export MILEPOST_API_KEY={api_key}" if api_key else ""
    python = f'"{address}", api_key=os.environ["MILEPOST_API_KEY"]' + ", insecure=True" * (
        insecure and not is_loopback(address)
    )
    print_line(f"""
Read it yourself, with the API key of the caller in MILEPOST_API_KEY{key}

  {_milepost()} ops get {operation_id} --address {address}

  grpcurl{" -plaintext" if plain else ""} -H "authorization: Bearer $MILEPOST_API_KEY" \\
    -d '{{"operation_id": "{operation_id}"}}' \\
    {address} milepost.v1.OperationService/GetOperation

  {shlex.quote(_near(sys.executable))} - <<'END'
  import os
  from milepost_client import SyncMilepost
  with SyncMilepost({python}) as milepost:
      print(milepost.result("{operation_id}"))
  END""")


def _milepost() -> str:
    """Return the command line of this program."""
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        return f"{shlex.quote(_near(sys.executable))} -m milepost"
    return shlex.quote(_near(sys.argv[0]))


def _near(program: str) -> str:
    """Return the path of a program, relative if it is below the current folder."""
    path = Path(program)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
