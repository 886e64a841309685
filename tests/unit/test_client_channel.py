"""Where the client speaks in plain text: on this machine, and where it was told to."""

import grpc
import pytest

from milepost_client import Milepost, Unavailable
from milepost_client.channel import is_loopback
from tests.unit.client_script import API_KEY, ID, got, serving

HERE = [
    "127.0.0.1:7450",
    "127.0.0.1",
    "127.8.8.8:1",
    "localhost:7450",
    "[::1]:7450",
    "::1",
    "dns:localhost:7450",
    "dns:///localhost:7450",
    "ipv4:127.0.0.1:1,127.0.0.2:2",
    "ipv6:[::1]:7450",
    "unix:/run/milepost.sock",
    "unix:///run/milepost.sock",
    "unix-abstract:milepost",
]
ELSEWHERE = [
    "milepost.example.com:443",
    "10.0.0.1:7450",
    "0.0.0.0:7450",
    "[2001:db8::1]:7450",
    "localhost.example.com:7450",
    "127.0.0.1.example.com:7450",
    "127.0.0.1@example.com:7450",
    "example.com/127.0.0.1:7450",
    "ipv4:127.0.0.1:1,10.0.0.1:1",
    "dns://8.8.8.8/localhost:7450",
    "xds:///localhost:7450",
    "localhost:7450:1",
    "",
]


@pytest.mark.parametrize("address", HERE)
def test_loopback_is_recognised(address):
    """Every way to write an address of this machine is recognised."""
    assert is_loopback(address)


@pytest.mark.parametrize("address", ELSEWHERE)
def test_nothing_else_is_taken_for_loopback(address):
    """What leads, or may lead, to another machine is not taken for this one."""
    assert not is_loopback(address)


async def test_proxy_of_the_environment_gets_nothing_in_plain_text(monkeypatch):
    """A plain channel to this machine goes past a proxy, which would see the API key."""
    async with serving() as proxy:
        for name in ("http_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.address}")
        async with (
            serving(got()) as service,
            Milepost(service.address, api_key=API_KEY) as milepost,
        ):
            assert (await milepost.get(ID)).id == ID
    assert proxy.asked == []


async def test_tls_is_used_when_asked_for():
    """With credentials the channel is encrypted, on loopback as well: plain text is no answer."""
    async with serving(got()) as service:
        tls = grpc.ssl_channel_credentials()
        async with Milepost(service.address, api_key=API_KEY, tls=tls, deadline=0.5) as milepost:
            with pytest.raises(Unavailable):
                await milepost.get(ID)
    assert service.asked == []


async def test_tls_is_the_default_to_other_machines():
    """Without a word about it, a name that is not of this machine is called over TLS only."""
    async with serving(got()) as service:
        port = service.address.rpartition(":")[2]
        elsewhere = f"ipv4:127.0.0.1:{port},10.255.255.1:{port}"  # the first one answers
        async with Milepost(elsewhere, api_key=API_KEY, deadline=0.5) as milepost:
            with pytest.raises(Unavailable):
                await milepost.get(ID)
        assert service.asked == []
        async with Milepost(elsewhere, api_key=API_KEY, insecure=True) as milepost:
            assert (await milepost.get(ID)).id == ID


def test_tls_and_insecure_exclude_each_other():
    """A channel cannot be both, and the client does not choose."""
    with pytest.raises(ValueError, match="exclude"):
        Milepost("x:1", api_key=API_KEY, tls=grpc.ssl_channel_credentials(), insecure=True)
