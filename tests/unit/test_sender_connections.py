"""The connection of a delivery attempt: its peer, TLS, and its end."""

import asyncio
import socket
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import uvloop

from milepost.domain.callback_url import read_callback_url
from milepost.webhooks.guard import Resolver
from milepost.webhooks.sender import Answer, Failure, Sender
from tests.certificates import Authority
from tests.receivers import OK, Behaviour, Receiver, answering, silence
from tests.unit.sender_fixtures import BODY, HEADERS, NAME, Start, rules_for, sent


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The certificates that the senders of these tests trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


async def test_host_that_now_has_a_forbidden_address(start: Start):
    """A name that now has a forbidden address is refused permanently, and not contacted."""
    receiver = await start(answering(OK), address="127.0.0.2")
    answer = await sent(f"http://{NAME}:{receiver.port}/", address="127.0.0.2")
    assert (answer.error, answer.refused) == (Failure.REFUSED, True)
    assert receiver.connections == 0


async def test_tls_keeps_the_name(start: Start, authority: Authority):
    """The connection goes to the checked address, and TLS and Host use the name."""
    receiver = await start(answering(OK), authority.certified(NAME))
    answer = await sent(f"https://{NAME}.:{receiver.port}/", tls=authority.trusted())
    assert answer.status == 200
    assert receiver.server_name == NAME
    assert f"Host: {NAME}:{receiver.port}\r\n".encode() in receiver.requests[0]


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")])
async def test_tls_of_literals(start: Start, authority: Authority, host: str, address: str):
    """An address can be the host, if the certificate is for this address."""
    receiver = await start(answering(OK), authority.certified(address), address=address)
    answer = await sent(f"https://{host}:{receiver.port}/", tls=authority.trusted())
    assert answer.status == 200


@pytest.mark.parametrize(
    ("certified", "trusted"), [("other.example.com", True), ("127.0.0.1", True), (NAME, False)]
)
async def test_certificates_are_verified(
    start: Start,
    authority: Authority,
    certified: str,
    trusted: bool,  # noqa: FBT001
):
    """Nothing is sent if the certificate is for another name or of an unknown authority.

    By default the authorities of the system are trusted.
    """
    receiver = await start(answering(OK), authority.certified(certified))
    tls = authority.trusted() if trusted else None
    answer = await sent(f"https://{NAME}:{receiver.port}/", tls=tls)
    assert answer.error == Failure.CERTIFICATE
    assert receiver.requests == []


async def test_plain_answer_to_tls(authority: Authority):
    """A receiver without TLS is a failure of the handshake."""

    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(chatter, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    answer = await sent(f"https://{NAME}:{port}/", tls=authority.trusted())
    server.close()
    assert answer.error == Failure.TLS


async def test_stalled_tls(start: Start, authority: Authority):
    """A TLS handshake that hangs ends with the connect timeout."""
    receiver = await start(silence)
    answer = await sent(
        f"https://{NAME}:{receiver.port}/", tls=authority.trusted(), seconds=5, connect=0.2
    )
    assert answer.error == Failure.CONNECT_TIMEOUT
    assert answer.duration < timedelta(seconds=3)


async def test_connect_that_hangs():
    """An attempt at a receiver that accepts no connection ends with the connect timeout."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)  # noqa: FBT003
            client.connect_ex(full.getsockname())
        answer = await sent(f"http://{NAME}:{full.getsockname()[1]}/", connect=0.2)
    assert answer.error == Failure.CONNECT_TIMEOUT


async def test_refused_connection():
    """A refused connection is reported as a failure to connect."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        answer = await sent(f"http://{NAME}:{bound.getsockname()[1]}/")
    assert answer.error == Failure.NOT_CONNECTED


async def test_name_without_address():
    """A name that cannot be resolved is a failure that may be retried."""
    rules = rules_for()

    def fail(_host: str, _port: int) -> list[str]:
        raise socket.gaierror

    sender = Sender(rules, Resolver(rules, look_up=fail))
    url = read_callback_url(f"https://{NAME}/", rules)
    answer = await sender.post(url, owner="alice", headers=HEADERS, body=BODY)
    await sender.close()
    assert (answer.error, answer.refused) == (Failure.UNRESOLVABLE, False)


async def test_proxies_and_passwords_of_the_environment_are_ignored(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """Neither a proxy nor a .netrc of the environment has any effect."""
    proxy = await start(answering(OK))
    receiver = await start(answering(OK))
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
    assert (await sent(f"http://{NAME}:{receiver.port}/")).status == 200
    assert proxy.connections == 0
    assert b"authorization" not in receiver.requests[0].lower()


async def test_nothing_is_kept_between_attempts(start: Start):
    """Each attempt has its own connection, without cookies of earlier ones."""
    receiver = await start(
        answering(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nConnection: keep-alive\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
    )
    rules = rules_for(receiver.port)
    sender = Sender(rules, Resolver(rules))
    url = read_callback_url(f"http://127.0.0.1:{receiver.port}/", rules)
    for owner in ("alice", "alice", "bob"):
        assert (await sender.post(url, owner=owner, headers=HEADERS, body=BODY)).status == 200
    await sender.close()
    assert receiver.connections == 3
    assert all(b"cookie" not in request.lower() for request in receiver.requests)


async def test_cancelled_attempt_closes_its_connection(start: Start):
    """A cancelled attempt ends at once, and its receiver sees the connection end."""
    gone = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        arrived.set()
        await reader.read()
        gone.set()

    arrived = asyncio.Event()
    receiver = await start(behave)
    attempt = asyncio.create_task(sent(f"http://127.0.0.1:{receiver.port}/"))
    async with asyncio.timeout(5):
        await arrived.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await gone.wait()


async def lingering(scheme: str, behaviour: Behaviour, authority: Authority) -> Answer:
    """Return the answer to one large webhook, after the receiver has seen the connection end."""
    gone = asyncio.Event()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behaviour(reader, writer)
            while not writer.is_closing():
                writer.write(b"x" * 65_536)
                await writer.drain()
        finally:
            gone.set()

    receiver = await Receiver(behave).start(
        authority.certified(NAME) if scheme == "https" else None
    )
    try:
        answer = await sent(f"{scheme}://{NAME}:{receiver.port}/", tls=authority.trusted())
        async with asyncio.timeout(5):
            await gone.wait()
    finally:
        await receiver.stop()
    return answer


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
def test_connection_ends_with_its_attempt(
    authority: Authority, scheme: str, loop: Callable[[], asyncio.AbstractEventLoop]
):
    """The connection ends with the attempt, even if the receiver continues to send."""
    with asyncio.Runner(loop_factory=loop) as runner:
        answer = runner.run(lingering(scheme, answering(b"HTTP/1.1 200 OK\r\n\r\n"), authority))
    assert answer.status == 200
