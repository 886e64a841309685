"""Types of setting values, and parsers of values that are lists."""

from __future__ import annotations

import ipaddress
import re
import ssl
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from milepost.domain.trust import is_this_machine
from milepost.hostnames import ascii_name

if TYPE_CHECKING:
    from collections.abc import Callable

_MONTH_S: Final = 31 * 86_400
_MAX_PORT: Final = 2**16 - 1
_DOMAIN: Final = re.compile(r"[\w-]+(\.[\w-]+)*")
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+):(?P<port>\d{1,5})", re.ASCII)

Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=10 * 365 * 86_400)]
Pause = Annotated[float, Field(ge=0, le=86_400)]
Count = Annotated[int, Field(gt=0, lt=2**31)]
CountOrNone = Annotated[int, Field(ge=0, lt=2**31)]

EMPTY_IS_NONE: Final = BeforeValidator(lambda value: value or None)
"""An empty variable counts as unset."""


def read_by(read: Callable[[str], object]) -> AfterValidator:
    """Return a validator that accepts text that `read` can parse, and keeps the text."""

    def check(text: str) -> str:
        read(text)
        return text

    return AfterValidator(check)


def within(value: float, info: ValidationInfo) -> float:
    """Return the default of a limit; raise ValueError if it is outside of its other two settings.

    These have the same name, with `min` and `max` instead of `default`.
    """
    name = str(info.field_name)
    minimum = info.data.get(name.replace("default", "min"), value)
    maximum = info.data.get(name.replace("default", "max"), value)
    if value < minimum:
        raise ValueError(f"must be at least the minimum, {minimum}")
    if value > maximum:
        raise ValueError(f"must be at most the maximum, {maximum}")
    return value


def readable(path: Path) -> Path:
    """Return the path; raise ValueError with the reason alone if the file cannot be read."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise ValueError(error.strerror) from None
    return path


def require_authorities(path: Path) -> None:
    """Raise ValueError unless the file has certificates (PEM)."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        raise ValueError("has no certificate (PEM)") from None


ReadableFile = Annotated[Annotated[Path, AfterValidator(readable)] | None, EMPTY_IS_NONE]


def require_address(text: str) -> None:
    """Raise ValueError unless this is HOST:PORT."""
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > _MAX_PORT:
        raise ValueError("must be HOST:PORT, an IPv6 address in brackets")


def is_loopback(address: str) -> bool:
    """Return whether only this machine can reach `address`, a HOST:PORT."""
    return is_this_machine(split_address(address)[0])


def split_address(address: str) -> tuple[str, str]:
    """Return host and port of a HOST:PORT, an IPv6 address without its brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), port


def listed(text: str) -> list[str]:
    """Return the items of a comma-separated list."""
    return [item for part in text.split(",") if (item := part.strip())]


def domains(text: str) -> tuple[str, ...]:
    """Return the domain names of a list, in ASCII; raise ValueError if one is invalid."""
    items = listed(text)
    if not all(_DOMAIN.fullmatch(item) for item in items):
        raise ValueError("must be names such as example.com; names below them need no asterisk")
    try:
        return tuple(map(ascii_name, items))
    except ValueError:
        raise ValueError("must be valid names; international ones may be given as xn--…") from None


def networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return the networks of a list; raise ValueError if one is invalid."""
    return tuple(ipaddress.ip_network(item) for item in listed(text))


def ports(text: str) -> tuple[int, ...]:
    """Return the ports of a list; raise ValueError if one is invalid."""
    items = listed(text)
    if not all(
        item.isascii() and item.isdecimal() and 0 < int(item) <= _MAX_PORT for item in items
    ):
        raise ValueError("must be ports, separated by commas")
    return tuple(int(item) for item in items)


def pauses(text: str) -> tuple[timedelta, ...]:
    """Return the pauses of a list of seconds; raise ValueError if it is empty or invalid."""
    seconds = [float(item) for item in listed(text)]
    if not all(0 <= each <= _MONTH_S for each in seconds):
        raise ValueError("must be from 0 to 2678400 (31 days)")
    if not seconds:
        raise ValueError("must have at least one pause")
    return tuple(timedelta(seconds=each) for each in seconds)
