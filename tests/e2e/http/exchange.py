"""Requests over HTTP as a program without a library of ours sends them, and raw connections."""

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self

from tests.canaries import CANARIES
from tests.e2e.client import Client
from tests.e2e.service import Service

TIMEOUT_S: Final = 60.0


class Endpoint(Protocol):
    """A service, or a proxy in front of one."""

    @property
    def http_address(self) -> str:
        """The address of the API over HTTP."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One response."""

    status: int
    headers: Mapping[str, str]
    """By their names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def refusal(self) -> tuple[int, str]:
        """Status and reason of a problem document."""
        assert self.headers["content-type"].startswith("application/problem+json"), self
        assert self.json["status"] == self.status
        return self.status, self.json.get("reason", "")


class Http:
    """The API over HTTP as one caller sees it, on one connection that is kept alive."""

    def __init__(
        self, endpoint: Endpoint, credential: str | None, tls: ssl.SSLContext | None = None
    ) -> None:
        self.credential = credential
        self._connection = (
            http.client.HTTPConnection(endpoint.http_address, timeout=TIMEOUT_S)
            if tls is None
            else http.client.HTTPSConnection(endpoint.http_address, timeout=TIMEOUT_S, context=tls)
        )

    def __call__(self, verb: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; underscores in names of headers are hyphens."""
        sent = {name.replace("_", "-"): text for name, text in headers.items()}
        if self.credential is not None:
            sent = {"Authorization": self.credential} | sent
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        if data is not None:
            sent = {"Content-Type": "application/json"} | sent
        self._connection.request(verb, path, data, sent)
        response = self._connection.getresponse()
        answer = Answer(
            status=response.status,
            headers={name.lower(): text for name, text in response.getheaders()},
            body=response.read(),
        )
        if answer.status >= http.client.BAD_REQUEST:  # others may hold what the caller stored
            CANARIES.saw("an HTTP response", answer.body)
        CANARIES.saw("HTTP headers", repr(answer.headers))
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def http_of(service: Service, client: Client) -> Http:
    """Return the API over HTTP as a client of the tests sees it."""
    return Http(service, f"Bearer {client.key}")


class RawHttp:
    """One connection, byte by byte."""

    def __init__(self, endpoint: Endpoint, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = endpoint.http_address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname=host)
        self._file = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        """Use the connection."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._file.close()
        self.socket.close()

    def send(self, verb: str, path: str, *headers: bytes | str, body: bytes = b"") -> None:
        """Send one request."""
        lines = [f"{verb} {path} HTTP/1.1".encode(), b"Host: milepost"]
        lines += [each if isinstance(each, bytes) else each.encode() for each in headers]
        self.socket.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    def status(self) -> int:
        """Read the status line."""
        line = self._file.readline()
        return int(line.split()[1]) if line else 0

    def headers(self) -> dict[str, str]:
        """Read the headers, after the status."""
        found = {}
        while line := self._file.readline().strip().decode():
            name, _, text = line.partition(":")
            found[name.lower()] = text.strip()
        return found

    def body(self) -> bytes:
        """Read the body, after the headers, of a response with a length."""
        return self._file.read(int(self.headers()["content-length"]))

    def response(self) -> bytes:
        """Read a whole response with a length, without its date."""
        lines = list(iter(self._file.readline, b"\r\n"))
        length = next(line for line in lines if line.lower().startswith(b"content-length:"))
        head = b"".join(line for line in lines if not line.startswith(b"Date:"))
        return head + self._file.read(int(length.split(b":")[1]))

    def lines(self) -> Iterator[str]:
        """Read the lines of a chunked body, after the headers, until it ends."""
        rest = b""
        while (size := int(self._file.readline() or b"0", 16)) > 0:
            rest += self._file.read(size)
            self._file.readline()
            *lines, rest = rest.split(b"\n")
            yield from (line.decode() for line in lines)

    def is_closed(self) -> bool:
        """Wait until the service closes the connection."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True


@dataclass(frozen=True, kw_only=True)
class Event:
    """One server-sent event."""

    type: str
    id: str
    data: Any


class EventStream:
    """A watch on a raw connection, parsed as the HTML standard says."""

    def __init__(self, connection: RawHttp, key: str, operation_id: str, **headers: str) -> None:
        self.connection = connection
        sent = [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
        path = f"/v1/operations/{operation_id}:watch"
        self.connection.send("GET", path, f"Authorization: Bearer {key}", *sent)
        self.status = self.connection.status()
        self.headers = self.connection.headers()
        self.comments = 0
        """Keep-alives so far."""

    def __enter__(self) -> Self:
        """Use the stream."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up."""
        self.connection.__exit__(kind, problem, traceback)

    def events(self) -> Iterator[Event]:
        """Yield the events until the stream ends."""
        fields: dict[str, str] = {}
        for line in self.connection.lines():
            name, _, text = line.partition(":")
            if line == "" and fields:
                data = json.loads(fields["data"])
                yield Event(type=fields["event"], id=fields.get("id", ""), data=data)
                fields = {}
            elif not name:
                self.comments += bool(text)
            else:
                fields[name] = text.strip()
