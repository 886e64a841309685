"""What the tests take from the machine they run on: its environment and its ports."""

import socket

from milepost.config import PREFIX, without_settings


def environment(**settings: str) -> dict[str, str]:
    """The environment of this process, with these settings of Milepost and no others."""
    return without_settings() | {f"{PREFIX}{n.upper()}": value for n, value in settings.items()}


def free_port() -> int:
    """A port of the loopback that nobody listens on, and that was not given out before."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        if port not in _given:
            _given.add(port)
            return port


def free_ports(count: int) -> list[int]:
    """Several of them."""
    return [free_port() for _ in range(count)]


_given: set[int] = set()
