"""Receivers of webhooks, polite and hostile ones, a name server, and an authority for their TLS.

As a program (``python -m tests.unit.receivers NAME``) it serves every kind of hostile receiver
outside of the process that is measured, and prints their ports.
"""

import asyncio
import datetime as dt
import gzip
import ipaddress
import json
import secrets
import socket
import ssl
import struct
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BOMB = gzip.compress(bytes(2**20)) * 1024
"""1 GiB of zeros, in about 1 MB."""


class Receiver:
    """A server on loopback that keeps what was sent to it and answers as `behaviour` does."""

    def __init__(self, behaviour: Behaviour, *, address: str = "127.0.0.1", port: int = 0) -> None:
        self._behaviour = behaviour
        self._place = address, port
        self._running: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.requests: list[bytes] = []
        self.server_name: str | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> "Receiver":
        """The server accepts connections."""
        if tls is not None:
            tls.sni_callback = self._note_name
        self._server = await asyncio.start_server(self._serve, *self._place, ssl=tls)
        return self

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Nothing of it runs any more."""
        self._server.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _note_name(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self.server_name = name

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.partition(b":")[2])
                for line in head.split(b"\r\n")
                if line.lower().startswith(b"content-length:")
            )
            self.requests.append(head + await reader.readexactly(length))
            await self._behaviour(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._running.discard(task)


def answering(answer: bytes) -> Behaviour:
    """Sends `answer` and closes."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    return behave


def repeating(begin: bytes, part: bytes, *, pause: float = 0) -> Behaviour:
    """Sends `begin`, and then `part` until the other side goes."""

    async def behave(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return behave


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends the status line and resets the connection."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Says nothing until the other side goes."""
    await reader.read()


HOSTILE: dict[str, Behaviour] = {
    "drip of headers": repeating(b"HTTP/1.1 200 OK\r\nX: ", b"x", pause=1),
    "drip of body": repeating(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x", pause=1),
    "endless body": repeating(b"HTTP/1.1 200 OK\r\n\r\n", bytes(65_536)),
    "endless header": repeating(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536),
    "interim answers": repeating(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000),
    "gzip bomb": answering(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB)
        + BOMB
    ),
    "10,000 headers": answering(
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(10_000)) + b"\r\n"
    ),
    "large headers": answering(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"
        + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8_000) for n in range(100))
        + b"\r\n"
    ),
    "reset": reset,
    "silence": silence,
}


class Authority:
    """A certificate authority of its own."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority of the tests")])
        self._certificate = self._sign(self._name, self._key, authority=True)

    @property
    def certificate(self) -> str:
        """Its own certificate, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def trusted(self) -> ssl.SSLContext:
        """What a client needs to trust this authority, and no other."""
        return ssl.create_default_context(cadata=self.certificate)

    def certified(self, *names: str) -> ssl.SSLContext:
        """What a server needs to be `names`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(x509.Name([]), key, names=names)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "server.pem")
            file.write_bytes(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                + certificate.public_bytes(serialization.Encoding.PEM)
            )
            context.load_cert_chain(file)
        return context

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        names: tuple[str, ...] = (),
        authority: bool = False,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        day = dt.timedelta(days=1)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            alternatives = x509.SubjectAlternativeName(map(_general_name, names))
            builder = builder.add_extension(alternatives, critical=not subject.rdns)
        return builder.sign(self._key, hashes.SHA256())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class NameServer:
    """A DNS server on loopback whose answers change with every question."""

    def __init__(self, turns: list[list[str]]) -> None:
        """The n-th question of each type is answered with the n-th turn, over and over."""
        self._turns = turns
        self._counts = {1: count(), 28: count()}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.questions = 0

    @contextmanager
    def running(self) -> Iterator["NameServer"]:
        """It answers."""
        thread = threading.Thread(target=self._serve)
        thread.start()
        try:
            yield self
        finally:
            self._socket.sendto(b"", self._socket.getsockname())
            thread.join()
            self._socket.close()

    def look_up(self, host: str, _: int) -> list[str]:
        """Ask this server for both kinds of addresses of `host`, over the network."""
        return [address for kind in (1, 28) for address in self._ask(host, kind)]

    def _ask(self, host: str, kind: int) -> Iterator[str]:
        name = b"".join(bytes([len(label)]) + label.encode() for label in host.split(".")) + b"\0"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(5)
            question = secrets.token_bytes(2) + struct.pack("!5H", 0x100, 1, 0, 0, 0)
            question += name + struct.pack("!2H", kind, 1)
            client.sendto(question, self._socket.getsockname())
            answer = client.recv(4_096)
        (found,) = struct.unpack_from("!H", answer, 6)
        place = len(question)
        for _ in range(found):
            (length,) = struct.unpack_from("!H", answer, place + 10)
            yield str(ipaddress.ip_address(answer[place + 12 : place + 12 + length]))
            place += 12 + length

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4_096)
            if not question:
                return
            self.questions += 1
            (kind,) = struct.unpack_from("!H", question, len(question) - 4)
            turn = self._turns[next(self._counts[kind]) % len(self._turns)]
            packed = [ipaddress.ip_address(text).packed for text in turn]
            packed = [each for each in packed if len(each) == (4 if kind == 1 else 16)]
            records = b"".join(
                struct.pack("!3HIH", 0xC00C, kind, 1, 0, len(each)) + each for each in packed
            )
            head = question[:2] + struct.pack("!5H", 0x8180, 1, len(packed), 0, 0)
            self._socket.sendto(head + question[12:] + records, client)


async def serve_hostile_ones(name: str) -> None:
    """Serve every kind of `HOSTILE`, plainly and as `name` over TLS, until standard input ends.

    Prints the ports of both and the certificate of the authority.
    """
    authority = Authority()
    kinds = HOSTILE.items()
    plain = {kind: await Receiver(behave).start() for kind, behave in kinds}
    tls = {kind: await Receiver(behave).start(authority.certified(name)) for kind, behave in kinds}
    places = {
        "http": {kind: receiver.port for kind, receiver in plain.items()},
        "https": {kind: receiver.port for kind, receiver in tls.items()},
        "authority": authority.certificate,
    }
    print(json.dumps(places), flush=True)  # noqa: T201 - what the parent process reads
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve_hostile_ones(sys.argv[1]))
