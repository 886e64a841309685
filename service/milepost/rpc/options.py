"""The options of the gRPC server."""

from __future__ import annotations

from typing import Final

METADATA_BYTES: Final = 65_536
"""The soft and the hard limit: between two different ones gRPC refuses calls at random.

A future of google-api-core sends one more header with every poll; the limit lets it poll for hours.
A waiting call takes 30 KiB with little metadata and 200 KiB with as much as this.
"""
CONCURRENT_STREAMS: Final = 1_000
"""Per connection. A proxy multiplexes many callers over one."""
MAX_PENDING_CALLS: Final = 20_000
"""Calls of all connections that the service has not taken over yet. Each has some 20 KiB.

gRPC answers further ones with CANCELLED, silently. Its own limit is 1,000.
"""
MAX_PENDING_S: Final = 600
"""Time after which gRPC does the same to a call that still waits; its own limit is 30 s.

A client does not repeat a call that it sees CANCELLED. Until then the call's deadline ends it.
"""
MIN_PING_INTERVAL_MS: Final = 9_000
"""Shortest interval of pings: clients that ping every 10 s have a second for delays on the way."""
_MINUTE_MS: Final = 60_000


def server_options(
    *, request_bytes: int, connections: int, shares_port: bool = False
) -> list[tuple[str, int]]:
    """Return the options for requests of this size, and this number of connections.

    With `shares_port`, the other processes of the same supervisor listen on the port, too.
    """
    return [
        ("grpc.max_receive_message_length", request_bytes),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.max_concurrent_streams", CONCURRENT_STREAMS),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING_CALLS),
        ("grpc.server_max_unrequested_time_in_server", MAX_PENDING_S),
        # Compressed requests are refused before they are inflated.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.keepalive_time_ms", _MINUTE_MS),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
        # Without this gRPC admits a ping every two hours on a connection without calls.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_idle_ms", 15 * _MINUTE_MS),
        # Connections are renewed, so that balancers spread them again.
        ("grpc.max_connection_age_ms", 30 * _MINUTE_MS),
        ("grpc.max_connection_age_grace_ms", 5 * _MINUTE_MS),
        # Off without a supervisor, which keeps the port from other processes: a leftover server
        # would silently take its share of the calls.
        ("grpc.so_reuseport", int(shares_port)),
    ]
