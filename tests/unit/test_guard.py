"""The address guard: resolved and connected addresses."""

import asyncio
import functools
import socket
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from ipaddress import ip_address, ip_network

import pytest
from aiohttp import ClientError, ClientSession, TCPConnector
from aiohttp.client_proto import ResponseHandler

from milepost.domain.callback_url import Address, CallbackRules, RefusedUrl, read_callback_url
from milepost.webhooks import guard
from milepost.webhooks.guard import (
    MAX_CONNECT_ATTEMPTS,
    CheckedAddresses,
    ForbiddenPeer,
    GuardedConnector,
    LookUp,
    Resolver,
    Unresolvable,
    ask_system,
    connecting_to,
)
from tests.receivers import OK, Receiver, answering

RULES = CallbackRules(allow_http=True, allowed_networks=(ip_network("127.0.0.1/32"),))
URL = read_callback_url("https://hooks.example.com/x", RULES)
ALLOWED, FORBIDDEN = ip_address("127.0.0.1"), ip_address("127.0.0.2")


@pytest.fixture
async def forbidden() -> AsyncIterator[Receiver]:
    """A receiver at a forbidden address."""
    receiver = await Receiver(answering(OK), address=str(FORBIDDEN)).start()
    yield receiver
    await receiver.stop()


def saying(*answers: str) -> LookUp:
    """Return a lookup that always returns `answers`."""
    return lambda _host, _port: answers


async def resolved(look_up: LookUp, limit: float = 2) -> list[Address]:
    """Return the addresses of `URL` according to `look_up`."""
    resolver = Resolver(RULES, look_up=look_up, limit=timedelta(seconds=limit))
    try:
        return await resolver.resolve(URL)
    finally:
        resolver.close()


async def test_public_answers():
    """A name is resolved to all its addresses, without duplicates."""
    answers = ("93.184.216.34", "2606:2800:220:1::1", "93.184.216.34")
    assert await resolved(saying(*answers)) == [ip_address(text) for text in answers[:2]]


@pytest.mark.parametrize(
    "bad",
    ["10.0.0.1", "127.0.0.2", "169.254.169.254", "100.64.0.1", "::1", "fe80::1%2",
     "::ffff:10.0.0.1", "64:ff9b::a00:1", "fd00::1", "0.0.0.0", "224.0.0.1"],  # noqa: S104 - refused
)  # fmt: skip
@pytest.mark.parametrize("good", [(), ("93.184.216.34",), ("93.184.216.34",) * 100])
async def test_one_bad_answer_is_enough(bad: str, good: tuple[str, ...]):
    """A name is refused if any of its addresses is not public; the error omits the address."""
    for answers in ((bad, *good), (*good, bad)):
        with pytest.raises(RefusedUrl) as caught:
            await resolved(saying(*answers))
        assert bad not in caught.value.problem


async def test_literal_is_not_looked_up():
    """An address literal in the URL is checked against the current rules."""

    def never(_host: str, _port: int) -> list[str]:
        raise AssertionError

    url = read_callback_url("https://127.0.0.1/", RULES)
    assert await Resolver(RULES, look_up=never).resolve(url) == [ALLOWED]
    with pytest.raises(RefusedUrl):
        await Resolver(CallbackRules(), look_up=never).resolve(url)


@pytest.mark.parametrize(
    "error", [socket.gaierror(socket.EAI_NONAME, "x"), OSError(), TimeoutError()]
)
async def test_no_answer(error: OSError):
    """A name that cannot be resolved now is not refused permanently."""

    def fail(_host: str, _port: int) -> list[str]:
        raise error

    with pytest.raises(Unresolvable):
        await resolved(fail)
    with pytest.raises(Unresolvable):
        await resolved(saying())
    with pytest.raises(Unresolvable):
        await resolved(saying("not an address"))


async def test_stuck_lookups_are_bounded():
    """Hanging lookups time out, and never occupy more than the given threads."""
    released, running = threading.Event(), []

    def hang(_host: str, _port: int) -> list[str]:
        running.append(threading.get_ident())
        released.wait(30)
        return []

    resolver = Resolver(RULES, look_up=hang, limit=timedelta(seconds=0.2), threads=3)
    try:
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(
                *(resolver.resolve(URL) for _ in range(50)), return_exceptions=True
            )
        assert {type(outcome) for outcome in outcomes} == {Unresolvable}
        assert len(running) == 3
    finally:
        released.set()
        resolver.close()


async def test_abandoned_lookups_do_not_start():
    """An abandoned lookup does not start when a thread becomes free."""
    released, asked = threading.Event(), []

    def look_up(host: str, _port: int) -> list[str]:
        asked.append(host)
        released.wait(30)
        return ["93.184.216.34"]

    resolver = Resolver(RULES, look_up=look_up, limit=timedelta(seconds=0.2), threads=1)
    for _ in range(3):
        with pytest.raises(Unresolvable):
            await resolver.resolve(URL)
    released.set()
    assert await resolver.resolve(URL) == [ip_address("93.184.216.34")]
    assert len(asked) == 2
    resolver.close()


def test_system_is_asked_for_absolute_names(monkeypatch: pytest.MonkeyPatch):
    """The system resolver gets the name with a final dot, so that it tries no search list.

    The query is intercepted, as the tests do not control the resolver of their machine.
    """
    asked = []

    def catch(host: str, port: int, **_: object):
        asked.append((host, port))
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", port))]

    monkeypatch.setattr(socket, "getaddrinfo", catch)
    assert list(ask_system("hooks.example.com", 8443)) == ["93.184.216.34"]
    assert asked == [("hooks.example.com.", 8443)]


async def connected(addresses: CheckedAddresses, receiver: Receiver, host: str) -> None:
    """Post to `receiver`, called `host`, at one of `addresses`."""
    async with ClientSession(connector=GuardedConnector()) as session:
        with connecting_to(addresses):
            async with session.post(f"http://{host}:{receiver.port}/", data=b"x"):
                pass


@pytest.mark.parametrize("host", [str(FORBIDDEN), "hooks.example.com"])
@pytest.mark.parametrize("checked", [(), (ALLOWED,), (FORBIDDEN,), (ALLOWED, FORBIDDEN)])
async def test_nothing_else_is_connected(
    forbidden: Receiver, host: str, checked: tuple[Address, ...]
):
    """No socket is opened to an address that is not checked or not allowed, literals included."""

    class Careless(CheckedAddresses):
        """Returns forbidden addresses."""

        def results(self, host: str, port: int):
            return CheckedAddresses((FORBIDDEN, FORBIDDEN), RULES).results(host, port)

    with pytest.raises(ForbiddenPeer):
        await connected(Careless(checked, RULES), forbidden, host)
    assert forbidden.connections == 0


async def test_unchecked_peer_gets_nothing(forbidden: Receiver):
    """Nothing is sent to a peer that is not a checked address."""

    class Blind(CheckedAddresses):
        """Opens a socket to any address."""

        def open_socket(self, info):
            return socket.socket(*info[:3])

    with pytest.raises(ForbiddenPeer):
        await connected(Blind((ALLOWED,), RULES), forbidden, str(FORBIDDEN))
    assert forbidden.requests == []


async def test_receiver_is_reached_without_the_guard(forbidden: Receiver):
    """Without the guard the receiver of these tests is reached."""
    async with (
        ClientSession(connector=TCPConnector()) as session,
        session.post(f"http://{FORBIDDEN}:{forbidden.port}/", data=b"x") as response,
    ):
        assert response.status == 200
    assert forbidden.connections == 1


def test_mapped_peer_is_recognised():
    """A checked address is recognised when the system reports it in its mapped form."""
    CheckedAddresses((ALLOWED,), RULES).check(("::ffff:127.0.0.1", 443, 0, 0))
    for peer in (None, ("127.0.0.3", 443), ("::1", 443, 0, 0), ("::ffff:127.0.0.2", 443, 0, 0)):
        with pytest.raises(ForbiddenPeer):
            CheckedAddresses((ALLOWED,), RULES).check(peer)


def test_few_of_many_addresses_are_tried():
    """Only the first few addresses of a name with a thousand are tried."""
    many = [ip_address(f"8.8.{n // 256}.{n % 256}") for n in range(1_000)]
    assert (
        len(CheckedAddresses(many, RULES).results("hooks.example.com", 443)) == MAX_CONNECT_ATTEMPTS
    )


def test_own_errors_are_errors_of_the_client():
    """The errors of the guard pass through aiohttp unchanged."""
    assert issubclass(ForbiddenPeer, ClientError)


async def test_changed_aiohttp_is_refused(monkeypatch):
    """A connector is refused if aiohttp creates its protocols without the bound."""
    monkeypatch.setattr(guard, "ResponseHandler", asyncio.Protocol)
    with pytest.raises(RuntimeError, match="aiohttp changed"):
        GuardedConnector()


async def test_protocol_with_other_callbacks_is_refused(monkeypatch):
    """A connector is refused if its protocol does not get the data through the usual callback."""

    class Buffered(ResponseHandler, asyncio.BufferedProtocol):
        """A protocol that reads into its own buffer."""

    monkeypatch.setattr(guard, "ResponseHandler", Buffered)
    monkeypatch.setattr("aiohttp.connector.ResponseHandler", Buffered)
    with pytest.raises(RuntimeError, match="aiohttp changed"):
        GuardedConnector()


async def test_connection_without_the_bound_is_not_used():
    """Nothing is sent on a connection that aiohttp makes with another protocol."""
    receiver = await Receiver(answering(OK), address=str(ALLOWED)).start()
    connector = GuardedConnector()
    connector._factory = functools.partial(ResponseHandler, loop=connector._loop)
    async with ClientSession(connector=connector) as session:
        with (
            connecting_to(CheckedAddresses((ALLOWED,), RULES)),
            pytest.raises(RuntimeError, match="aiohttp changed"),
        ):
            await session.post(f"http://hooks.example.com:{receiver.port}/", data=b"x")
    assert receiver.requests == []
    await receiver.stop()
