"""The environment, the free ports and the load of the machine that runs the tests."""

import itertools
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from milepost.config import PREFIX, without_settings


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of this process with only these settings of Milepost."""
    return without_settings() | {f"{PREFIX}{n.upper()}": value for n, value in settings.items()}


def free_port() -> int:
    """Return a free port of the loopback that was not returned before.

    It is below the ports that the system gives to outgoing connections. One of those could take it
    before the process under test listens.
    """
    for port in _candidates:
        if _is_free(port):
            return port
    raise OSError("every port of the loopback is taken")


def free_ports(count: int) -> list[int]:
    """Return several free ports."""
    return [free_port() for _ in range(count)]


def slowdown() -> float:
    """Return how many times longer than on a quiet machine a process may take."""
    busy = max(os.getloadavg()[0], _runnable())  # in the last minute, and now
    return max(1.0, busy / (os.cpu_count() or 1))


def _runnable() -> int:
    """Return how many threads run, or wait for a processor; 0 on a system that does not say."""
    try:
        return int(_LOAD.read_text().partition("/")[0].split()[-1])
    except OSError:
        return 0


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _ports() -> Iterator[int]:
    """Return the ports of this process of the tests, from a random one on."""
    try:
        end = int(_EPHEMERAL.read_text().split()[0])
    except OSError:
        end = _EPHEMERAL_START
    of, own = (int(os.environ.get(name, default).removeprefix("gw")) for name, default in _SHARES)
    ports = range(_FIRST_PORT + own, end, of)
    start = random.randrange(len(ports))  # noqa: S311 - no secret
    return itertools.chain(ports[start:], ports[:start])


_LOAD: Final = Path("/proc/loadavg")
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EPHEMERAL_START: Final = 32768
_FIRST_PORT: Final = 10000
_SHARES: Final = (("PYTEST_XDIST_WORKER_COUNT", "1"), ("PYTEST_XDIST_WORKER", "gw0"))
"""How many processes run the tests, and which one this is."""
_candidates = _ports()
