"""A container of the image: its user on its root, read-only, in namespaces of its own."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from tests.waiting import eventually

VOLUME: Final = "/var/lib/milepost"
RUN_S: Final = 60
_SCRIPT: Final = """
root=$1 volume=$2 folder=$3 user=$4
shift 4
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind "$volume" "$root$folder"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec chroot --userspec="$user" --groups= "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$folder" "$@"
"""


class Container:
    """The program of the image as the first process of a container.

    Args:
        root: the root file system of the image.
        configuration: the configuration of the image.
        volume: the folder that is mounted at the only place where the container may write.
    """

    def __init__(self, root: Path, configuration: Mapping[str, Any], volume: Path) -> None:
        self._root = root
        self._configuration: Mapping[str, Any] = configuration["config"]
        self._volume = volume
        os.chown(volume, *(int(part) for part in self.user.split(":")))

    @property
    def user(self) -> str:
        """The user and the group of the image, as numbers."""
        return str(self._configuration["User"])

    def run(self, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the program to its end."""
        return subprocess.run(
            self._command(command),
            check=False,
            env=self._environment(settings),
            capture_output=True,
            text=True,
            timeout=RUN_S,
        )

    @contextmanager
    def running(self, log: Path, **settings: str) -> Iterator["Running"]:
        """Run the command of the image, and kill it at the end of the block."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self._command(self._configuration["Cmd"]),
                env=self._environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Running(process, log)
        finally:
            process.kill()
            process.wait()

    def _command(self, command: tuple[str, ...] | list[str]) -> list[str | Path]:
        return [
            *("unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
            *("sh", "-euc", _SCRIPT, "sh", self._root, self._volume),
            *(self._configuration["WorkingDir"], self.user),
            *self._configuration["Entrypoint"],
            *command,
        ]

    def _environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        own = dict(each.split("=", 1) for each in self._configuration["Env"])
        return own | {f"MILEPOST_{name.upper()}": value for name, value in settings.items()}


class Running:
    """A running container."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """The log so far."""
        return self._log.read_text(encoding="utf-8")

    def assert_runs(self) -> None:
        """Fail if the container has ended."""
        assert self._process.poll() is None, self.log

    @property
    def first(self) -> psutil.Process:
        """The first process of the container."""
        self.assert_runs()
        found = psutil.Process(self._process.pid).children()
        assert len(found) == 1
        return found[0]

    def stop(self) -> int:
        """Send the first process SIGTERM, and return the exit code of the container."""
        self.first.send_signal(signal.SIGTERM)
        eventually(lambda: self._process.poll() is not None, within=RUN_S, what="the end")
        return int(self._process.returncode)
