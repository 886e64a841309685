"""Structs to JSON text: bounded in depth, so that every client can decode the answers with them."""

from __future__ import annotations

import json
from typing import Any, Final

from google.protobuf import struct_pb2

_EXACT: Final = 2.0**53


def to_json(struct: struct_pb2.Struct, max_levels: int) -> str:
    """Return a Struct as compact JSON text.

    Raises:
        ValueError: more than `max_levels` objects and lists are nested in each other, or a number
            is not finite; the text is the problem of the field.
    """
    plain = _plain(struct)
    if (levels := _levels(plain)) > max_levels:
        raise ValueError(
            f"must have at most {max_levels} levels of objects and lists, found {levels}"
        )
    try:
        return json.dumps(
            plain,
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
            sort_keys=True,  # a Struct has a random order, but equal content needs equal text
        )
    except ValueError:
        raise ValueError("must be JSON: it has a number that is not finite") from None


def _plain(value: struct_pb2.Struct | struct_pb2.ListValue | struct_pb2.Value) -> Any:
    """Return the Python value of a Struct, ListValue or Value, with whole numbers as integers."""
    if isinstance(value, struct_pb2.Struct):
        return {name: _plain(item) for name, item in value.fields.items()}
    if isinstance(value, struct_pb2.ListValue):
        return [_plain(item) for item in value.values]
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() and abs(number) < _EXACT else number
    if kind in (None, "null_value"):
        return None
    item = getattr(value, kind)
    return _plain(item) if kind in ("struct_value", "list_value") else item


def _levels(plain: Any) -> int:
    """Return the number of objects and lists that are nested in each other."""
    if isinstance(plain, dict):
        return 1 + max(map(_levels, plain.values()), default=0)
    if isinstance(plain, list):
        return 1 + max(map(_levels, plain), default=0)
    return 0
