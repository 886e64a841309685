"""Attributes of spans by the semantic conventions of OpenTelemetry.

Those of RPC are a release candidate, those of HTTP and of databases are stable. None holds a
query, a credential, or a text of a caller.
"""

from __future__ import annotations

import socket
import urllib.parse
from typing import Final

_REDACTED: Final = "REDACTED"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}

Place = tuple[str, int | None]
"""A host, or the path of a socket, and a port."""


def place_of_peer(peer: str) -> Place | None:
    """Return host and port of the other side, in gRPC's form ``ipv4:host:port``, or None."""
    kind, _, rest = peer.partition(":")
    if kind not in {"ipv4", "ipv6"}:
        return None
    host, _, port = urllib.parse.unquote(rest).rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else None


def place_of_listener(address: str) -> Place:
    """Return host and port of HOST:PORT; the name of this machine if it is every address."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    return (socket.gethostname() if host in {"", "0.0.0.0", "::"} else host), int(port)  # noqa: S104 - nothing is bound here


def server(place: Place | None) -> dict[str, str | int]:
    """Return the attributes of the side that answers."""
    return _place("server", place)


def client(place: Place | None) -> dict[str, str | int]:
    """Return the attributes of the side that asks, which is also the peer of the connection."""
    return _place("client", place) | _place("network.peer", place)


def rpc_call(method: str) -> dict[str, str | int]:
    """Return the attributes of a gRPC call."""
    return {"rpc.system.name": "grpc", "rpc.method": method}


def http_request(verb: str, route: str, path: str, *, scheme: str) -> dict[str, str | int]:
    """Return the attributes of a request to this service, without its query."""
    return {
        "http.request.method": verb,
        "http.route": route,
        "url.path": path,
        "url.scheme": scheme,
    }


def http_post(url: str, *, resent: int) -> dict[str, str | int]:
    """Return the attributes of a POST to a URL, whose path and query may be secret.

    Args:
        url: the URL.
        resent: failed attempts before this one.
    """
    found: dict[str, str | int] = {"http.request.method": "POST"}
    if resent:
        found["http.request.resend_count"] = resent
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # it was stored before the rules for URLs were as strict
        return found
    shown = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    return found | {
        "url.full": f"{parts.scheme}://{shown}/{_REDACTED}",
        **server((host, port or _DEFAULT_PORTS.get(parts.scheme))),
    }


def _place(prefix: str, place: Place | None) -> dict[str, str | int]:
    if place is None:
        return {}
    host, port = place
    return {f"{prefix}.address": host} | ({} if port is None else {f"{prefix}.port": port})
