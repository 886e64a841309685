"""The environment and the free ports of the machine that runs the tests."""

import socket

from milepost.config import PREFIX, without_settings


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of this process with only these settings of Milepost."""
    return without_settings() | {f"{PREFIX}{n.upper()}": value for n, value in settings.items()}


def free_port() -> int:
    """Return a free port of the loopback that was not returned before."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def free_ports(count: int) -> list[int]:
    """Return several free ports."""
    return [free_port() for _ in range(count)]


_given: set[int] = set()
