"""Keepalive of stock clients over the real durations: a quiet wait and an idle channel."""

import asyncio

import grpc
import pytest
from google.protobuf import duration_pb2

from tests.e2e.rpcs import BY_METHOD
from tests.e2e.service import Service

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
WAIT_S = 55
IDLE_PINGS = 4


@pytest.fixture
def service(database_url, tmp_path):
    """A service on each database."""
    with Service(database_url, tmp_path) as service:
        yield service


def pinging(address: str, every_s: int, *, idle: bool) -> grpc.aio.Channel:
    """Return a channel that pings during calls, and without calls too if it is `idle`."""
    options = (
        ("grpc.keepalive_time_ms", every_s * 1_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", int(idle)),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    )
    return grpc.aio.insecure_channel(address, options=options)


@pytest.mark.parametrize("every_s", [10, 31])
async def test_quiet_wait_survives_pings(service, every_s):
    """A client that pings during a quiet wait of 55 s gets its answer."""
    alice = service.client("alice")
    operation = alice.create()
    rpc = BY_METHOD["WaitOperation"]
    request = rpc.request(operation_id=operation.id, timeout=duration_pb2.Duration(seconds=WAIT_S))
    async with pinging(service.address, every_s, idle=False) as channel:
        answer = await rpc.on(channel)(request, metadata=alice.metadata, timeout=WAIT_S + 15)
    assert answer.operation.id == operation.id


async def test_idle_channel_survives_pings(service):
    """A channel without calls that pings every 30 s stays connected."""
    alice = service.client("alice")
    operation = alice.create()
    async with pinging(service.address, 30, idle=True) as channel:
        await alice.begin(channel, "GetOperation", operation_id=operation.id)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(
                channel.wait_for_state_change(grpc.ChannelConnectivity.READY), 30 * IDLE_PINGS + 5
            )
