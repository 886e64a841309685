"""The attributes of spans follow the conventions of OpenTelemetry, and hold no secret."""

import socket

import pytest

from milepost.telemetry import conventions


@pytest.mark.parametrize(
    ("peer", "place"),
    [
        ("ipv4:127.0.0.1:5000", ("127.0.0.1", 5000)),
        ("ipv6:[::1]:5000", ("::1", 5000)),
        ("ipv6:%5B::1%5D:5000", ("::1", 5000)),
        ("unix:/run/milepost.sock", None),
        ("unix:", None),
        ("", None),
    ],
)
def test_place_of_a_peer(peer, place):
    """The address of a peer has no port in it; a socket without an address has neither."""
    assert conventions.place_of_peer(peer) == place


@pytest.mark.parametrize(
    ("address", "host"),
    [("127.0.0.1:7450", "127.0.0.1"), ("[::1]:7450", "::1"), ("milepost:7450", "milepost")],
)
def test_place_of_a_listener(address, host):
    """The address of a listener is its host, and the port stands by itself."""
    assert conventions.server(conventions.place_of_listener(address)) == {
        "server.address": host,
        "server.port": 7450,
    }


@pytest.mark.parametrize("address", ["0.0.0.0:7450", "[::]:7450"])
def test_place_of_a_listener_on_every_address(address):
    """A listener on every address has the name of the machine."""
    assert conventions.place_of_listener(address) == (socket.gethostname(), 7450)


@pytest.mark.parametrize(
    ("url", "full", "port"),
    [
        ("https://hooks.example.com/secret?key=secret", "https://hooks.example.com/REDACTED", 443),
        ("http://hooks.example.com:8080/", "http://hooks.example.com:8080/REDACTED", 8080),
        ("https://[2001:db8::1]:8443/a", "https://[2001:db8::1]:8443/REDACTED", 8443),
        ("https://me:secret@hooks.example.com/", "https://hooks.example.com/REDACTED", 443),
    ],
)
def test_url_of_a_webhook_is_redacted(url, full, port):
    """The URL of a webhook has neither path, nor query, nor credentials."""
    found = conventions.http_post(url, resent=0)
    assert (found["url.full"], found["server.port"]) == (full, port)
    assert "secret" not in str(found)


def test_stored_url_that_cannot_be_read_has_no_attributes():
    """A URL that cannot be read is left out."""
    assert conventions.http_post("https://[broken", resent=2) == {
        "http.request.method": "POST",
        "http.request.resend_count": 2,
    }
