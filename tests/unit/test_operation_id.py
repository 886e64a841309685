"""Operation ids: their shape and their randomness."""

import re

import pytest

from milepost.domain.operation import (
    ID_LENGTH,
    ID_PATTERN,
    ID_PREFIX,
    ID_RANDOM_BYTES,
    new_operation_id,
)

VALID = "op_0123456789abcdef01234567"


def test_new_id_has_the_shape():
    """A new id is op_ and 24 lower-case hex characters, 27 in all."""
    operation_id = new_operation_id()
    assert re.fullmatch(r"op_[0-9a-f]{24}", operation_id)
    assert len(operation_id) == ID_LENGTH == 27


def test_new_ids_differ():
    """Many new ids all differ and all start with op_."""
    ids = {new_operation_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert all(operation_id.startswith(ID_PREFIX) for operation_id in ids)


def test_ids_have_96_random_bits():
    """The number of random bytes is one named constant, which the pattern and the length follow."""
    assert ID_RANDOM_BYTES * 8 == 96
    assert ID_PATTERN.pattern == "op_[0-9a-f]{24}"


def test_every_character_varies():
    """Each of the 24 characters takes each of the 16 values."""
    ids = [new_operation_id() for _ in range(1_000)]
    for place in range(len(ID_PREFIX), ID_LENGTH):
        assert {operation_id[place] for operation_id in ids} == set("0123456789abcdef")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "invalid-id",
        "invalid-format",
        VALID[:-1],
        f"{VALID}0",
        VALID.upper(),
        VALID.replace("a", "A"),
        VALID.replace("a", "g"),
        VALID.replace("op_", "xx_"),
        VALID.replace("op_", "OP_"),
        f"{VALID}\n",
        f" {VALID}",
        f"{VALID[:-1]}\n",
        VALID.replace("0", "\u0660"),
    ],
)
def test_malformed_ids(text):
    """Only a text that matches the whole pattern is an id."""
    assert ID_PATTERN.fullmatch(text) is None


def test_well_formed_ids():
    """Any text of the right shape is an id, whatever its origin."""
    assert ID_PATTERN.fullmatch(VALID)
