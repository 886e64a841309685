"""The channel to the service: with TLS, unless the service is on this machine."""

import ipaddress
import re
from pathlib import Path
from typing import Final

import grpc

from milepost_client.version import VERSION

OPTIONS: Final = (
    ("grpc.primary_user_agent", f"milepost-client-python/{VERSION}"),
    # Detects a dead connection during a call; the service admits a ping every 10 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # Finds a service that comes back within 2 s; the default of gRPC is up to 2 min.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A page of full operations may exceed the 4 MiB of gRPC; the service bounds it.
    ("grpc.max_receive_message_length", -1),
    # A name with many addresses stands for many replicas: use them in turn.
    ("grpc.lb_policy_name", "round_robin"),
)

NETWORK: Final = re.compile(r"(?:dns:(?:///)?|ipv4:|ipv6:)?(?P<hosts>.+)")
"""The addresses that name hosts: ``host:port``, ``dns:///host:port``, ``ipv4:host:port,…``."""
HOST: Final = re.compile(r"\[(?P<bracketed>.*)\](?::\d+)?|(?P<plain>[^:]*)(?::\d+)?|(?P<bare>.*)")


def open_channel(
    address: str, *, tls: grpc.ChannelCredentials | None, insecure: bool
) -> grpc.aio.Channel:
    """Return a channel to the address that connects with the first call.

    With `tls` it uses these credentials. Without, it uses TLS with the roots of the system,
    except to the loopback interface or with `insecure`: then nothing is encrypted, and the proxy
    of the environment is not used, because it would see the API key.

    Raises:
        ValueError: Both `tls` and `insecure` are given.
    """
    if tls and insecure:
        raise ValueError("tls and insecure exclude each other")
    if insecure or (tls is None and is_loopback(address)):
        return grpc.aio.insecure_channel(address, (*OPTIONS, ("grpc.enable_http_proxy", 0)))
    return grpc.aio.secure_channel(address, tls or grpc.ssl_channel_credentials(), OPTIONS)


def read_tls(
    *,
    ca_file: str | Path | None = None,
    certificate_file: str | Path | None = None,
    key_file: str | Path | None = None,
) -> grpc.ChannelCredentials:
    """Return the credentials of a channel from files in PEM.

    Args:
        ca_file: The authorities that sign the certificate of the service. By default the roots of
            the system.
        certificate_file: The certificate of this client, with its chain.
        key_file: The key of that certificate.

    Raises:
        ValueError: Only one of certificate and key is given.
        OSError: A file cannot be read.
    """
    if (certificate_file is None) != (key_file is None):
        raise ValueError("a client certificate and its key need each other")
    roots, key, chain = (
        Path(file).read_bytes() if file is not None else None
        for file in (ca_file, key_file, certificate_file)
    )
    return grpc.ssl_channel_credentials(roots, key, chain)


def is_loopback(address: str) -> bool:
    """Return True if every connection to the address stays on this machine."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    network = NETWORK.fullmatch(address)
    return network is not None and all(map(_is_loopback_host, network["hosts"].split(",")))


def _is_loopback_host(address: str) -> bool:
    found = HOST.fullmatch(address)
    host = found[found.lastgroup] if found and found.lastgroup else address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
