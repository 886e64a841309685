"""A name server whose answers change."""

import ipaddress
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count


class NameServer:
    """A DNS server on loopback whose answers change with every question."""

    def __init__(self, turns: list[list[str]]) -> None:
        """Answer the n-th question of each type with the n-th turn, over and over."""
        self._turns = turns
        self._counts = {1: count(), 28: count()}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.questions = 0

    @contextmanager
    def running(self) -> Iterator["NameServer"]:
        """Run the server inside the block."""
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
