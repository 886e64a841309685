"""The part of HTTP/2 (RFC 9113) and HPACK (RFC 7541) that a gRPC caller needs."""

import struct
from collections.abc import Iterable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = 9
GRPC_PREFIX = 5

DATA = 0x0
HEADERS = 0x1
RST_STREAM = 0x3
SETTINGS = 0x4
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4

DEFAULT_WINDOW = 65_535
MAX_WINDOW = 2**31 - 1

_PREFIX = struct.Struct(">BHBBI")
_SETTING = struct.Struct(">HI")
_LENGTH = struct.Struct(">BI")

_METHOD_POST = b"\x83"
_SCHEME_HTTP = b"\x86"
_MAX_SHORT_LENGTH = 127


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Encode one frame."""
    size = len(payload)
    return _PREFIX.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Encode a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*value) for value in values))


def read_settings(payload: bytes) -> dict[int, int]:
    """Return the values of a SETTINGS frame by identifier."""
    return dict(_SETTING.iter_unpack(payload))


def window_update(stream: int, increment: int) -> bytes:
    """Encode a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def grpc_message(message: bytes) -> bytes:
    """Encode an uncompressed gRPC message."""
    return _LENGTH.pack(0, len(message)) + message


def split_messages(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the complete gRPC messages, and the bytes of the next one."""
    found = []
    while len(data) >= GRPC_PREFIX:
        end = GRPC_PREFIX + int.from_bytes(data[1:GRPC_PREFIX], "big")
        if len(data) < end:
            break
        found.append(data[GRPC_PREFIX:end])
        data = data[end:]
    return found, data


def request_head(path: str, metadata: Iterable[tuple[str, str]] = ()) -> bytes:
    """Encode the header block of a gRPC call; it has no compression state and can be reused."""
    fields = [
        (":path", path),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *metadata,
    ]
    return _METHOD_POST + _SCHEME_HTTP + head(*fields)


def head(*fields: tuple[str, str]) -> bytes:
    """Encode a header block of literals, which has no compression state."""
    return b"".join(_literal(name.encode(), value.encode()) for name, value in fields)


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + _string(name) + _string(value)


def _string(text: bytes) -> bytes:
    if len(text) < _MAX_SHORT_LENGTH:
        return bytes([len(text)]) + text
    rest = len(text) - _MAX_SHORT_LENGTH
    encoded = bytearray([_MAX_SHORT_LENGTH])
    while rest >= 0x80:
        encoded.append(0x80 | rest & 0x7F)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded) + text


def status_of(block: bytes) -> str:
    """Return the grpc-status in an uncompressed header block, or "" if it has none."""
    name = b"grpc-status"
    at = block.find(name)
    if at < 0:
        return ""
    at += len(name)
    return block[at + 1 : at + 1 + block[at]].decode("latin-1")


def readable(block: bytes, longest: int = 160) -> str:
    """Return the printable part of a header block, to show the cause of a failure."""
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else " " for byte in block)
    return " ".join(text.split())[:longest]
