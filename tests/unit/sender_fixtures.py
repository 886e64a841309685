"""One attempt to deliver a webhook to a receiver on the loopback."""

import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

from milepost.domain.callback_url import CallbackRules, CallbackUrl, read_callback_url
from milepost.webhooks.guard import Resolver
from milepost.webhooks.sender import Answer, Failure, Sender
from tests.receivers import Receiver

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "Milepost-Webhook/1",
    "webhook-id": "msg_1",
}
BODY = b'{"type":"operation.completed"}'
NAME = "hooks.example.com"

Start = Callable[..., Awaitable[Receiver]]


def rules_for(*ports: int) -> CallbackRules:
    """Return rules that allow one loopback address and these ports."""
    networks = (ip_network("127.0.0.1/32"), ip_network("::1/128"))
    return CallbackRules(allow_http=True, allowed_networks=networks, allowed_ports=ports)


async def sent(
    text: str,
    *,
    address: str = "127.0.0.1",
    tls: ssl.SSLContext | None = None,
    seconds: float = 5,
    connect: float = 3,
) -> Answer:
    """Return the outcome of one attempt at `text`, whose host resolves to `address`."""
    port = int(text.split("/")[2].rpartition(":")[2])
    rules = rules_for(port)
    sender = Sender(
        rules,
        Resolver(rules, look_up=lambda _host, _port: [address]),
        tls=tls,
        total=timedelta(seconds=seconds),
        connect=timedelta(seconds=connect),
        now=lambda: NOW,
    )
    url: CallbackUrl = read_callback_url(text, rules)
    try:
        answer = await sender.post(url, owner="alice", headers=HEADERS, body=BODY)
    finally:
        await sender.close()
    assert (answer.status is None) != (answer.error is None)
    assert answer.refused == (answer.error == Failure.REFUSED)
    return answer
