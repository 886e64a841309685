"""API keys: their format, their checksum, and the part that is stored."""

import dataclasses
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.domain.api_key import (
    CHECKSUM_LENGTH,
    KEY_ID_BYTES,
    SECRET_BYTES,
    StoredKey,
    _checksum,
    issue_key,
    key_id_of,
    verify_key,
)
from milepost.domain.operation import Principal, Role

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.fixture
def issued() -> tuple[str, StoredKey]:
    """Return a key and its stored part."""
    return issue_key(subject="alice", roles=[Role.CALLER, Role.WORKER], functions=["video.*"])


def test_key_has_the_shape(issued):
    """A key is mp_, its public id, and 192 random bits with a checksum, in letters and digits."""
    key, stored = issued
    assert re.fullmatch(r"mp_[0-9a-f]{16}_[0-9A-Za-z]{39}", key)
    assert stored.principal.credential_id == key[3 : 3 + 2 * KEY_ID_BYTES] == key_id_of(key)
    assert SECRET_BYTES * 8 == 192


def test_key_speaks_for_its_principal(issued):
    """A caller that presents the key is its subject, with its roles and grants."""
    key, stored = issued
    assert verify_key(key, stored) == Principal(
        subject="alice",
        roles=frozenset({Role.CALLER, Role.WORKER}),
        credential_id=stored.principal.credential_id,
        functions=("video.*",),
    )


def test_only_a_digest_is_stored(issued):
    """Only the SHA-256 of the key is stored, from which the key cannot be derived."""
    key, stored = issued
    assert stored.digest == hashlib.sha256(key.encode()).digest()
    assert key.split("_")[2] not in repr(stored)


def test_keys_differ():
    """No two keys share an id or a secret."""
    keys = [issue_key(subject="alice", roles=[Role.CALLER])[0] for _ in range(200)]
    for part in (1, 2):
        assert len({key.split("_")[part] for key in keys}) == len(keys)


def test_every_character_of_a_secret_varies():
    """The secret uses its whole alphabet but for its first digit, which holds the last bits."""
    secrets = [issue_key(subject="a", roles=[Role.CALLER])[0].split("_")[2] for _ in range(2_000)]
    for place in range(1, 33):
        assert {secret[place] for secret in secrets} == set(ALPHABET)


def test_unknown_key_is_refused(issued):
    """A key that is not stored authenticates no principal."""
    assert verify_key(issued[0], None) is None


def test_another_key_is_refused(issued):
    """A key with the same public id but another secret authenticates no principal."""
    key, stored = issued
    other, _ = issue_key(subject="mallory", roles=[Role.ADMIN])
    body = f"{key.rpartition('_')[0]}_{other.rpartition('_')[2][:-CHECKSUM_LENGTH]}"
    forged = body + _checksum(body)
    assert key_id_of(forged) == stored.principal.credential_id
    assert verify_key(forged, stored) is None


@pytest.mark.parametrize("place", range(32))
def test_every_byte_of_a_digest_counts(issued, place):
    """A stored digest that differs in one byte, the first or the last, belongs to another key."""
    key, stored = issued
    digest = bytearray(stored.digest)
    digest[place] ^= 1
    assert verify_key(key, dataclasses.replace(stored, digest=bytes(digest))) is None


@pytest.mark.parametrize("place", [0, 31])
def test_one_byte_of_a_digest_is_not_enough(issued, place):
    """Keys whose digests share only the first or the last byte are different keys."""
    key, stored = issued
    digest = bytearray(byte ^ 0xFF for byte in stored.digest)
    digest[place] = stored.digest[place]
    assert verify_key(key, dataclasses.replace(stored, digest=bytes(digest))) is None


def test_every_typing_error_is_detected(issued):
    """A key with any one character changed is refused without a look-up."""
    key, _ = issued
    for place, character in enumerate(key):
        for other in "0aZ_":
            if other != character:
                assert key_id_of(key[:place] + other + key[place + 1 :]) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda _: "",
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key + "\n",
        lambda key: " " + key,
        lambda key: key.upper(),
        lambda key: key.replace("mp_", "mq_"),
        lambda key: key.replace("_", "-"),
    ],
    ids=["empty", "short", "long", "newline", "space", "upper", "prefix", "dashes"],
)
def test_malformed_key_is_refused(issued, change):
    """Only a text that matches the whole pattern is a key."""
    assert key_id_of(change(issued[0])) is None


@given(st.text())
def test_any_text_can_be_asked(text):
    """No text that is sent as a key causes an exception."""
    assert key_id_of(text) is None
    assert verify_key(text, None) is None
