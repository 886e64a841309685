"""One attempt to deliver a webhook, and what is said about it."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
import uvloop

from milepost.domain.callback_url import CallbackRules, CallbackUrl, read_callback_url
from milepost.webhooks.guard import HEAD_BYTES, Resolver
from milepost.webhooks.sender import BODY_BYTES, RETRY_AFTER_MAX, Answer, Failure, Sender
from tests.certificates import Authority
from tests.receivers import HOSTILE, OK, Behaviour, Receiver, answering, silence

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
HEADERS = {
    "Content-Type": "application/json",
    "User-Agent": "Milepost-Webhook/1",
    "webhook-id": "msg_1",
}
BODY = b'{"type":"operation.completed"}'
NAME = "hooks.example.com"

Start = Callable[..., Awaitable[Receiver]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts receivers that end with the test."""
    running: list[Receiver] = []

    async def start(
        behaviour: Behaviour, tls: ssl.SSLContext | None = None, *, address: str = "127.0.0.1"
    ) -> Receiver:
        running.append(await Receiver(behaviour, address=address).start(tls))
        return running[-1]

    yield start
    for receiver in running:
        await receiver.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whom the senders of these tests trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


def rules_for(*ports: int) -> CallbackRules:
    """Rules that allow one address of loopback, and these ports."""
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
    """What is said about one attempt at `text`, whose name stands for `address`."""
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


async def test_request_as_it_arrives(start: Start):
    """The receiver gets exactly these headers and bytes, at the path as it was written."""
    receiver = await start(answering(OK))
    answer = await sent(f"http://{NAME}:{receiver.port}/a/../%2f?x=%20&&y=+")
    assert answer.status == 200
    assert timedelta() < answer.duration < timedelta(seconds=5)
    (request,) = receiver.requests
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line == "POST /a/../%2f?x=%20&&y=+ HTTP/1.1"
    assert body == BODY
    assert sorted(headers) == sorted(
        [
            f"Host: {NAME}:{receiver.port}",
            "Connection: close",
            f"Content-Length: {len(BODY)}",
            *(f"{name}: {value}" for name, value in HEADERS.items()),
        ]
    )


@pytest.mark.parametrize("status", [200, 204, 299, 302, 304, 400, 404, 410, 429, 500, 503, 599])
async def test_status_is_reported(start: Start, status: int):
    """Whatever the receiver answers is reported, and is not an error of the sender."""
    receiver = await start(answering(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status))
    answer = await sent(f"http://127.0.0.1:{receiver.port}/")
    assert (answer.status, answer.error, answer.retry_after) == (status, None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", timedelta()),
        ("7", timedelta(seconds=7)),
        (" 120 ", timedelta(seconds=120)),
        ("000000000000120", timedelta(seconds=120)),
        ("9" * 4_000, RETRY_AFTER_MAX),
        ("Sat, 21 Nov 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Saturday, 21-Nov-26 12:01:00 GMT", timedelta(seconds=60)),
        ("Sat, 21 Nov 2026 11:00:00 GMT", timedelta()),
        ("Sat, 21 Nov 2099 12:00:00 GMT", RETRY_AFTER_MAX),
        ("Sat, 21 Nov 99999 12:00:00 GMT", None),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ],
)
async def test_retry_after(start: Start, text: str, expected: timedelta | None):
    """Retry-After is understood in seconds and as a date, and never means more than a day."""
    head = f"HTTP/1.1 429 X\r\nContent-Length: 0\r\nRetry-After: {text}\r\n\r\n"
    receiver = await start(answering(head.encode()))
    answer = await sent(f"http://127.0.0.1:{receiver.port}/")
    assert (answer.status, answer.retry_after) == (429, expected)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to_listener", [True, False])
async def test_redirects_are_not_followed(start: Start, status: int, to_listener: bool):  # noqa: FBT001
    """A redirect is reported, and its target never contacted: not loopback, not metadata (B219)."""
    target = await start(answering(OK))
    place = f"127.0.0.1:{target.port}" if to_listener else "169.254.169.254"
    receiver = await start(
        answering(
            f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nRefresh: 0;url=http://{place}/\r\n"
            f"Location: http://{place}/latest/meta-data/\r\n\r\n".encode()
        )
    )
    assert (await sent(f"http://{NAME}:{receiver.port}/")).status == status
    assert (target.connections, receiver.connections) == (0, 1)


async def test_host_that_now_stands_for_a_forbidden_address(start: Start):
    """A name whose address is forbidden by now is refused for good, and not contacted (B219)."""
    receiver = await start(answering(OK), address="127.0.0.2")
    answer = await sent(f"http://{NAME}:{receiver.port}/", address="127.0.0.2")
    assert (answer.error, answer.refused) == (Failure.REFUSED, True)
    assert receiver.connections == 0


async def test_tls_keeps_the_name(start: Start, authority: Authority):
    """The connection goes to the checked address, and TLS and Host speak of the name."""
    receiver = await start(answering(OK), authority.certified(NAME))
    answer = await sent(f"https://{NAME}.:{receiver.port}/", tls=authority.trusted())
    assert answer.status == 200
    assert receiver.server_name == NAME
    assert f"Host: {NAME}:{receiver.port}\r\n".encode() in receiver.requests[0]


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("[::1]", "::1")])
async def test_tls_of_literals(start: Start, authority: Authority, host: str, address: str):
    """An address can be a host as well, if the certificate is for this address."""
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
    """A certificate for another name or of an unknown authority is not accepted; nothing is sent.

    By default the authorities of the system are trusted.
    """
    receiver = await start(answering(OK), authority.certified(certified))
    tls = authority.trusted() if trusted else None
    answer = await sent(f"https://{NAME}:{receiver.port}/", tls=tls)
    assert answer.error == Failure.CERTIFICATE
    assert receiver.requests == []


async def test_plain_answer_to_tls(authority: Authority):
    """A receiver that does not speak TLS is a failure of the handshake."""

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
    """A TLS handshake that does not go on ends with the limit for connecting."""
    receiver = await start(silence)
    answer = await sent(
        f"https://{NAME}:{receiver.port}/", tls=authority.trusted(), seconds=5, connect=0.2
    )
    assert answer.error == Failure.CONNECT_TIMEOUT
    assert answer.duration < timedelta(seconds=3)


async def test_connect_that_hangs():
    """A receiver that does not accept connections ends with the limit for connecting."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for client in (first, second):
            client.setblocking(False)  # noqa: FBT003
            client.connect_ex(full.getsockname())
        answer = await sent(f"http://{NAME}:{full.getsockname()[1]}/", connect=0.2)
    assert answer.error == Failure.CONNECT_TIMEOUT


async def test_nobody_listens():
    """A refused connection is a failure to connect."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        answer = await sent(f"http://{NAME}:{bound.getsockname()[1]}/")
    assert answer.error == Failure.NOT_CONNECTED


async def test_name_without_address():
    """A name that cannot be resolved now may be resolved later: the attempt is not refused."""
    rules = rules_for()

    def fail(_host: str, _port: int) -> list[str]:
        raise socket.gaierror

    sender = Sender(rules, Resolver(rules, look_up=fail))
    url = read_callback_url(f"https://{NAME}/", rules)
    answer = await sender.post(url, owner="alice", headers=HEADERS, body=BODY)
    await sender.close()
    assert (answer.error, answer.refused) == (Failure.UNRESOLVABLE, False)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (b"", Failure.CLOSED),
        (b"HTTP/1.1 200 OK\r\n", Failure.CLOSED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", Failure.CLOSED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", Failure.CLOSED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", Failure.MALFORMED),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Failure.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n", Failure.MALFORMED),
        (b"HTTP/1.1 abc OK\r\n\r\n", Failure.MALFORMED),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 9_000 + b"\r\n\r\n", Failure.MALFORMED),
    ],
)
async def test_broken_answers(start: Start, answer: bytes, failure: Failure):
    """An answer that breaks off or is no HTTP is no success, whatever its status line said."""
    receiver = await start(answering(answer))
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).error == failure


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("drip of headers", Failure.TIMEOUT),
        ("drip of body", Failure.TIMEOUT),
        ("silence", Failure.TIMEOUT),
        ("endless body", 200),
        ("gzip bomb", 200),
        ("endless header", Failure.MALFORMED),
        ("10,000 headers", Failure.MALFORMED),
        ("large headers", Failure.HEAD_TOO_LONG),
        ("interim answers", Failure.HEAD_TOO_LONG),
        ("reset", Failure.CLOSED),
    ],
)
async def test_hostile_receivers(start: Start, name: str, expected: Failure | int):
    """Every hostile receiver is done with within the limit, and is given a plain name."""
    receiver = await start(HOSTILE[name])
    answer = await sent(f"http://127.0.0.1:{receiver.port}/", seconds=1)
    assert expected in (answer.status, answer.error)
    assert answer.duration < timedelta(seconds=2)


@pytest.mark.parametrize(("size", "fits"), [(HEAD_BYTES, True), (HEAD_BYTES + 1, False)])
async def test_headers_are_bounded(start: Start, size: int, fits: bool):  # noqa: FBT001
    """Headers of 64 KiB in all are read, one byte more is too long."""
    begin, end = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"\r\nok"
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 6_000) for n in range(10))
    left = size - len(begin + lines + b"X: \r\n\r\n")
    head = begin + lines + b"X: " + b"y" * left + b"\r\n"
    receiver = await start(answering(head + end))
    answer = await sent(f"http://127.0.0.1:{receiver.port}/")
    assert (answer.status, answer.error) == ((200, None) if fits else (None, Failure.HEAD_TOO_LONG))


async def test_body_is_not_read_to_its_end(start: Start):
    """Of a body that never comes to its end no more is awaited than the limit."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + bytes(BODY_BYTES))
        await reader.read()

    receiver = await start(behave)
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).status == 200


async def test_compressed_answer_is_left_alone(start: Start):
    """A body that says it is compressed, and is not, is no reason to fail: it is not looked at."""
    receiver = await start(
        answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd")
    )
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).status == 200


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
    """Each attempt has a connection of its own, and brings no cookie of the one before."""
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


async def test_headers_that_cannot_be_sent(start: Start):
    """A header that would break the request is not sent; that, too, is a value."""
    receiver = await start(answering(OK))
    rules = rules_for(receiver.port)
    sender = Sender(rules, Resolver(rules))
    url = read_callback_url(f"http://127.0.0.1:{receiver.port}/", rules)
    headers = {"X-Operation-Id": "op_1\r\nX-Evil: 1"}
    answer = await sender.post(url, owner="alice", headers=headers, body=BODY)
    await sender.close()
    assert answer.error == Failure.INTERNAL
    assert receiver.requests == []


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
    """The answer to one large webhook, when the receiver has seen the connection end."""
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
    """A receiver that goes on sending sees the connection end as soon as its answer is taken."""
    with asyncio.Runner(loop_factory=loop) as runner:
        answer = runner.run(lingering(scheme, answering(b"HTTP/1.1 200 OK\r\n\r\n"), authority))
    assert answer.status == 200


async def test_words_are_fixed(start: Start):
    """Nothing that a receiver says gets into the text of an error."""
    receiver = await start(answering(b"HTTP/1.1 <script> canary\r\nCanary: canary\r\n\r\n"))
    answer = await sent(f"http://127.0.0.1:{receiver.port}/")
    assert answer.error in set(Failure)
    assert "canary" not in repr(answer)
