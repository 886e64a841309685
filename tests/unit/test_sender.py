"""One delivery attempt: the request, and the outcome of the response."""

import asyncio
from datetime import timedelta

import pytest

from milepost.domain.callback_url import read_callback_url
from milepost.webhooks.guard import HEAD_BYTES, Resolver
from milepost.webhooks.sender import BODY_BYTES, RETRY_AFTER_MAX, Failure, Sender
from tests.receivers import HOSTILE, OK, Behaviour, answering
from tests.unit.sender_fixtures import BODY, HEADERS, NAME, Start, rules_for, sent

PACKET_S = 0.05
"""Pause after which the other side has read a packet by itself."""


async def test_request_as_it_arrives(start: Start):
    """The receiver gets exactly these headers and bytes, at the unchanged path."""
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
    """Every HTTP status is returned, and no error of the sender."""
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
    """Retry-After is read as seconds or a date, up to a day."""
    head = f"HTTP/1.1 429 X\r\nContent-Length: 0\r\nRetry-After: {text}\r\n\r\n"
    receiver = await start(answering(head.encode()))
    answer = await sent(f"http://127.0.0.1:{receiver.port}/")
    assert (answer.status, answer.retry_after) == (429, expected)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to_listener", [True, False])
async def test_redirects_are_not_followed(start: Start, status: int, to_listener: bool):  # noqa: FBT001
    """A redirect is reported, and its target is never contacted."""
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
    """A truncated or malformed response is a failure, whatever its status."""
    receiver = await start(answering(answer))
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).error == failure


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\nok", 204),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n<html>", 200),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok then", 200),
        (b"HTTP/1.1 410 X\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", 410),
        (b"HTTP/1.1 100 X\r\n\r\nHTTP/1.1 204 X\r\n\r\nok", 204),
    ],
)
async def test_bytes_behind_an_answer(start: Start, answer: bytes, status: int):
    """A complete response counts, whatever follows it, and however it is cut into packets."""
    receiver = await start(answering(answer))
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).status == status
    end = answer.index(b"\r\n\r\n") + 3
    receiver = await start(in_packets(answer[:end], answer[end:]))
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).status == status


async def test_malformed_body_of_a_later_packet(start: Start):
    """A malformed body ends the attempt at once."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    receiver = await start(in_packets(chunked, b"zz\r\n"))
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).error == Failure.MALFORMED


def in_packets(*packets: bytes) -> Behaviour:
    """Send each packet by itself, and wait until the other side closes."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for packet in packets:
            writer.write(packet)
            await writer.drain()
            await asyncio.sleep(PACKET_S)
        await reader.read()

    return behave


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
    """An attempt at a hostile receiver ends within the timeout, with the right failure."""
    receiver = await start(HOSTILE[name])
    answer = await sent(f"http://127.0.0.1:{receiver.port}/", seconds=1)
    assert expected in (answer.status, answer.error)
    assert answer.duration < timedelta(seconds=2)


@pytest.mark.parametrize(("size", "fits"), [(HEAD_BYTES, True), (HEAD_BYTES + 1, False)])
async def test_headers_are_bounded(start: Start, size: int, fits: bool):  # noqa: FBT001
    """Headers of 64 KiB in total are read, and one byte more is refused."""
    begin, end = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"\r\nok"
    lines = b"".join(b"X-%d: %s\r\n" % (n, b"y" * 6_000) for n in range(10))
    left = size - len(begin + lines + b"X: \r\n\r\n")
    head = begin + lines + b"X: " + b"y" * left + b"\r\n"
    receiver = await start(answering(head + end))
    answer = await sent(f"http://127.0.0.1:{receiver.port}/")
    assert (answer.status, answer.error) == ((200, None) if fits else (None, Failure.HEAD_TOO_LONG))


async def test_body_is_not_read_to_its_end(start: Start):
    """A body without an end is read up to the limit only."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n" + bytes(BODY_BYTES))
        await reader.read()

    receiver = await start(behave)
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).status == 200


async def test_compressed_answer_is_not_decompressed(start: Start):
    """A body with a wrong Content-Encoding is not a failure, as it is not decompressed."""
    receiver = await start(
        answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd")
    )
    assert (await sent(f"http://127.0.0.1:{receiver.port}/")).status == 200


async def test_headers_that_cannot_be_sent(start: Start):
    """A header that would break the request is not sent; the outcome is a failure."""
    receiver = await start(answering(OK))
    rules = rules_for(receiver.port)
    sender = Sender(rules, Resolver(rules))
    url = read_callback_url(f"http://127.0.0.1:{receiver.port}/", rules)
    headers = {"X-Operation-Id": "op_1\r\nX-Evil: 1"}
    answer = await sender.post(url, owner="alice", headers=headers, body=BODY)
    await sender.close()
    assert answer.error == Failure.INTERNAL
    assert receiver.requests == []


async def test_texts_of_failures_are_fixed(start: Start):
    """No text of a receiver is part of a failure."""
    receiver = await start(answering(b"HTTP/1.1 <script> canary\r\nCanary: canary\r\n\r\n"))
    answer = await sent(f"http://127.0.0.1:{receiver.port}/")
    assert answer.error in set(Failure)
    assert "canary" not in repr(answer)
