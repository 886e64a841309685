"""Expectations of answers: plain values, and the patterns that a scenario writes as YAML tags."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

DATA: Final = frozenset({"metadata", "result", "checkpoint", "details", "content", "each"})
"""The members whose content is data of the user, which an expectation names completely."""

MAX_SHOWN: Final = 300
"""Length of a value in a line about a difference."""


@dataclass
class Names:
    """The values that a run has kept, by name, and the word that makes its own names unique."""

    word: str
    kept: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """A value that was kept before."""

    name: str


@dataclass(frozen=True)
class Own:
    """A name that no other run uses."""

    name: str


@dataclass(frozen=True)
class Keep:
    """Any value, which is kept under the name."""

    name: str


@dataclass(frozen=True)
class Text:
    """A text that contains a match of the regular expression."""

    pattern: str


@dataclass(frozen=True)
class Between:
    """A number within these bounds."""

    low: float
    high: float


class Present:
    """Any value but null."""


class Absent:
    """The absence of a member."""


def mismatches(expected: Any, found: Any, names: Names, *, exact: bool = False) -> list[str]:
    """Return how the value found differs from the expected one, one line for each difference.

    An expected object names the members that matter, unless it is data of the user.
    """
    return list(_mismatches(expected, found, names, exact, "answer"))


def _mismatches(expected: Any, found: Any, names: Names, exact: bool, place: str) -> Any:  # noqa: FBT001
    match expected:
        case Keep(name):
            names.kept[name] = found
        case Present():
            if found is None:
                yield f"{place}: expected a value, found null"
        case Text(pattern):
            if not isinstance(found, str) or not re.search(pattern, found):
                yield f"{place}: expected a text like {pattern!r}, found {found!r}"
        case Between(low, high):
            if not isinstance(found, (int, float)) or not low <= found <= high:
                yield f"{place}: expected a number from {low} to {high}, found {found!r}"
        case Mapping():
            yield from _object_mismatches(expected, found, names, exact, place)
        case list():
            yield from _list_mismatches(expected, found, names, exact, place)
        case _:
            if not equal(value := fill(expected, names), found):
                yield f"{place}: expected {_short(value)}, found {_short(found)}"


def _object_mismatches(expected: Any, found: Any, names: Names, exact: bool, place: str) -> Any:  # noqa: FBT001
    if not isinstance(found, Mapping):
        yield f"{place}: expected an object, found {found!r}"
        return
    for name, member in expected.items():
        here = f"{place}.{name}"
        if isinstance(member, Absent):
            if name in found:
                yield f"{here}: expected nothing, found {found[name]!r}"
        elif name not in found:
            yield f"{here}: expected {_shown(member, names)}, found nothing"
        else:
            inner = exact or name in DATA
            yield from _mismatches(member, found[name], names, inner, here)
    if exact:
        for name in found.keys() - expected.keys():
            yield f"{place}.{name}: expected nothing, found {found[name]!r}"


def _list_mismatches(expected: Any, found: Any, names: Names, exact: bool, place: str) -> Any:  # noqa: FBT001
    if not isinstance(found, list) or len(found) != len(expected):
        yield f"{place}: expected {len(expected)} items, found {found!r}"
        return
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        yield from _mismatches(one, other, names, exact, f"{place}[{number}]")


def _shown(member: Any, names: Names) -> str:
    plain = isinstance(member, (Keep, Text, Between, Present, Mapping, list))
    return str(member) if plain else repr(fill(member, names))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} … ({len(text):,} characters)"


def equal(one: Any, other: Any) -> bool:
    """Return True for equal JSON values: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def fill(value: Any, names: Names) -> Any:
    """Return the value with what was kept, and with names of this run.

    Raises:
        AssertionError: Nothing was kept under a name.
    """
    match value:
        case Kept(name):
            assert name in names.kept, f"nothing was kept as {name!r}"
            return names.kept[name]
        case Own(name):
            return f"{name}-{names.word}"
        case Mapping():
            return {key: fill(member, names) for key, member in value.items()}
        case list():
            return [fill(item, names) for item in value]
        case _:
            return value() if callable(value) else value
