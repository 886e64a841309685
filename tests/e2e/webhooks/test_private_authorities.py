"""Receivers whose certificates come from a private authority."""

import asyncio
import threading
from typing import Any

import pytest

from tests.certificates import Authority
from tests.e2e import fork_server
from tests.e2e.service import Service
from tests.e2e.webhooks.owner import new_secret_of
from tests.machine import environment
from tests.receivers import OK, Receiver, answering


@pytest.fixture
def authority(tmp_path):
    """A private authority."""
    return Authority(tmp_path)


@pytest.fixture
def secure_receiver(authority):
    """A receiver over TLS, with a certificate of the authority."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    receiver = Receiver(answering(OK))
    start = receiver.start(authority.certified("127.0.0.1"))
    asyncio.run_coroutine_threadsafe(start, loop).result(5)
    yield receiver
    asyncio.run_coroutine_threadsafe(receiver.stop(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def probe(folder, receiver, **settings):
    """Return the attempt of a test webhook to the receiver."""
    allowed: dict[str, Any] = {
        "webhook_allowed_networks": "127.0.0.1/32",
        "webhook_allowed_ports": str(receiver.port),
    }
    with Service(f"sqlite:///{folder / 'milepost.db'}", folder, **allowed, **settings) as service:
        alice = service.client("alice")
        new_secret_of(alice)
        url = f"https://127.0.0.1:{receiver.port}/"
        return alice.call("SendTestWebhook", callback_url=url).attempt


def test_unknown_authority_is_not_accepted(tmp_path, secure_receiver):
    """Without the setting, a certificate of a private authority fails the attempt."""
    assert probe(tmp_path, secure_receiver).error == "certificate not accepted"


def test_private_authority_is_trusted(tmp_path, authority, secure_receiver):
    """With the setting, webhooks go to receivers whose certificate the authority issued."""
    found = probe(tmp_path, secure_receiver, webhook_ca_file=str(authority.file))
    assert found.status_code == 200


def test_roots_of_the_system_stay_trusted(tmp_path, authority, secure_receiver, monkeypatch):
    """The setting adds to the roots of the system and does not replace them."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))  # the roots of this system
    another = Authority(tmp_path)
    found = probe(tmp_path, secure_receiver, webhook_ca_file=str(another.file))
    assert found.status_code == 200


@pytest.mark.parametrize(
    ("content", "problem"), [("no certificate", "no certificate (PEM)"), (None, "No such file")]
)
def test_unusable_file_is_a_problem_of_the_settings(tmp_path, content, problem):
    """`check-config` reads the file, and names the setting if it is not usable."""
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_text(content)
    settings = environment(webhook_ca_file=str(file))
    done = fork_server.run("check-config", environment=settings, timeout=120)
    assert done.returncode == 2
    assert "MILEPOST_WEBHOOK_CA_FILE: " in done.stderr
    assert problem in done.stderr
