"""Metadata as JSON: one text for equal content, and the numbers of JSON."""

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from milepost.api.create_fields import CreateFields
from milepost.api.messages import _struct
from milepost.domain.limits import Limits
from milepost.gen.milepost.v1 import operation_service_pb2

CREATE = operation_service_pb2.CreateOperationRequest
numbers = st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0)
"""Numbers without -0.0, which equals 0.0."""
json_values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def create_fields(request) -> CreateFields:
    """Return the fields of a create."""
    return CreateFields(request, Limits())


@given(json_values)
def test_json_is_kept(value):
    """The JSON of a Struct is read back equal, and equal content has equal text."""
    request = CREATE(function="f")
    request.metadata.update({"value": value})
    text = create_fields(request).metadata()
    assert text is not None
    assert _struct(text) == request.metadata
    again = struct_pb2.Struct.FromString(request.metadata.SerializeToString())
    assert create_fields(CREATE(function="f", metadata=again)).metadata() == text


@given(st.dictionaries(st.text(), st.integers(-(2**53), 2**53), min_size=2))
def test_order_of_metadata_does_not_matter(content):
    """Metadata in another order has the same text, so that a repeated create is recognised."""
    texts = set()
    for order in (list(content), list(content)[::-1]):
        request = CREATE(function="f")
        for name in order:
            request.metadata.fields[name].number_value = content[name]
        texts.add(create_fields(request).metadata())
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("number", "text"),
    [(1.0, "1"), (-3.0, "-3"), (0.1, "0.1"), (2.0**53, "9007199254740992.0"), (1e300, "1e+300")],
)
def test_whole_numbers_are_integers(number, text):
    """A whole number is an integer in JSON as far as a double is exact."""
    request = CREATE(function="f")
    request.metadata.fields["n"].number_value = number
    assert create_fields(request).metadata() == f'{{"n":{text}}}'


def test_value_without_a_kind_is_null():
    """A Value without a kind is null."""
    request = CREATE(function="f")
    request.metadata.fields["n"].SetInParent()
    assert create_fields(request).metadata() == '{"n":null}'
