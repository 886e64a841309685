"""Signatures, as the published library verifies them."""

import base64
import json
import os
import random
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from milepost.domain.delivery import SealedSecret, SigningSecret, new_delivery_id
from milepost.domain.errors import WebhooksNotConfigured
from milepost.webhooks.masterkeys import key_beside, new_key, read_keys
from milepost.webhooks.signing import signature, signed_headers
from milepost.webhooks.vault import Vault

NOW = datetime.now(UTC)


def whsec(key):
    """The text of a secret."""
    return "whsec_" + base64.b64encode(key).decode()


def test_published_library_verifies_every_payload():
    """1,000 random payloads, each verified by the library that receivers use (B206)."""
    dice = random.Random(3)  # noqa: S311 - any spread will do
    for n in range(1_000):
        key, webhook_id = dice.randbytes(32), new_delivery_id()
        payload = {"n": n, "text": "".join(chr(dice.randrange(32, 0xD000)) for _ in range(50))}
        body = json.dumps(payload, ensure_ascii=False).encode()
        headers = signed_headers([key], webhook_id, NOW, body)
        assert Webhook(whsec(key)).verify(body, dict(headers)) == payload


def test_known_signature():
    """The example of the Standard Webhooks libraries comes out to the byte."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_two_keys_two_signatures():
    """While a secret is rotated, a receiver with either secret verifies; with another, not."""
    old, new = os.urandom(32), os.urandom(32)
    headers = dict(signed_headers([new, old], "msg_1", NOW, b"{}"))
    assert headers["webhook-signature"].count(" ") == 1
    for key in (old, new):
        Webhook(whsec(key)).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(whsec(os.urandom(32))).verify(b"{}", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(whsec(new)).verify(b"{ }", headers)


def sealed(vault, owner, secret):
    """A stored secret."""
    key_id, encrypted = vault.seal(owner, secret)
    return SealedSecret(
        owner=owner,
        key_id=key_id,
        sealed=encrypted,
        create_time=NOW,
        expire_time=None,
        request_id=None,
    )


def test_secret_is_bound_to_its_owner_and_its_key():
    """A secret is read by its own owner under its own master key, and by nobody else."""
    keys = read_keys(f"{new_key()},{new_key()}")
    vault = Vault(keys)
    stored = sealed(vault, "alice", b"secret" * 5)
    assert stored.key_id == next(iter(keys))
    assert b"secret" not in stored.sealed
    assert vault.unseal(stored) == b"secret" * 5
    foreign = SealedSecret(
        owner="mallory",
        key_id=stored.key_id,
        sealed=stored.sealed,
        create_time=NOW,
        expire_time=None,
        request_id=None,
    )
    for reader, secret in (
        (vault, foreign),
        (Vault(read_keys(new_key())), stored),
        (Vault({stored.key_id: os.urandom(32)}), stored),
    ):
        with pytest.raises(WebhooksNotConfigured):
            reader.unseal(secret)


def test_later_key_reads_what_an_earlier_one_wrote():
    """After a new master key is put first, what the old one sealed is still read."""
    old, new = new_key(), new_key()
    stored = sealed(Vault(read_keys(old)), "alice", b"x" * 32)
    vault = Vault(read_keys(f"{new},{old}"))
    assert vault.unseal(stored) == b"x" * 32
    assert vault.seal("alice", b"")[0] == new.partition(":")[0]


@pytest.mark.parametrize(
    "text", ["", "abc", "a b:x", ":" + "A" * 44, "k:short", "k:" + "A" * 43 + "=x", "k:***"]
)
def test_bad_master_keys_are_refused(text):
    """What is no list of keys is refused, and the error repeats none of it."""
    with pytest.raises(ValueError, match="key 1") as refused:
        read_keys(text)
    assert text == "" or text not in str(refused.value)


def test_same_key_id_twice():
    """Two keys with one id are refused: nobody could tell which one sealed."""
    with pytest.raises(ValueError, match="another one"):
        read_keys(f"{new_key()},{(key := new_key())},{key}")


def test_embedded_key_is_made_once(tmp_path):
    """The key beside the embedded store is made at first use and is for its user alone."""
    path = tmp_path / "milepost.webhook-keys"
    made = key_beside(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_beside(path) == made


def test_secret_hides_itself():
    """A secret that is shown by mistake does not show its key (B221)."""
    secret = SigningSecret(key=b"hush", create_time=NOW, expire_time=NOW + timedelta(days=1))
    assert "hush" not in repr(secret)
