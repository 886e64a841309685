"""Opening the channel: TLS unless the service is on this very machine."""

import ipaddress
import re
from pathlib import Path
from typing import Final

import grpc

from milepost_client.version import VERSION

OPTIONS: Final = (
    ("grpc.primary_user_agent", f"milepost-client-python/{VERSION}"),
    # A connection that died silently is noticed during a call; the service admits a ping per 30 s.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A service that comes back is found within 2 s, not within the 2 min that gRPC admits.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # A page of full operations may exceed the 4 MiB that gRPC admits; the service bounds it.
    ("grpc.max_receive_message_length", -1),
    # An error that names many fields travels in the trailing metadata.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    # A name with many addresses stands for many replicas: ask them in turn.
    ("grpc.lb_policy_name", "round_robin"),
)

NETWORK: Final = re.compile(r"(?:dns:(?:///)?|ipv4:|ipv6:)?(?P<hosts>.+)")
"""What names hosts, one or many: ``host:port``, ``dns:///host:port``, ``ipv4:host:port,…``."""
HOST: Final = re.compile(r"\[(?P<bracketed>.*)\](?::\d+)?|(?P<plain>[^:]*)(?::\d+)?|(?P<bare>.*)")


def open_channel(
    address: str, *, tls: grpc.ChannelCredentials | None, insecure: bool
) -> grpc.aio.Channel:
    """Return a channel to the address that connects with the first call.

    With `tls` it uses these credentials. Without, it uses TLS with the roots of the system,
    except to the loopback interface or if `insecure` says so: then nothing is encrypted, and no
    proxy of the environment is used, which would get to see the API key.

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
        ca_file: The authorities that the service's certificate is checked with. By default the
            roots of the system.
        certificate_file: The certificate of this client, with its chain.
        key_file: The key of that certificate.

    Raises:
        ValueError: Certificate and key are not given together.
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
    """Tell whether every connection to the address stays on this machine."""
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
