"""Expectations of answers: plain values, and the patterns that a scenario writes as YAML tags."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
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


class Pattern(ABC):
    """A condition for a value."""

    @abstractmethod
    def matches(self, found: Any) -> bool:
        """Return True if the value is as expected."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, repr=False)
class Text(Pattern):
    """A text that contains a match of the regular expression."""

    pattern: str

    def matches(self, found: Any) -> bool:
        """Return True if it does."""
        return isinstance(found, str) and re.search(self.pattern, found) is not None

    def __str__(self) -> str:
        return f"a text like {self.pattern!r}"


@dataclass(frozen=True, repr=False)
class Between(Pattern):
    """A number within these bounds."""

    low: float
    high: float

    def matches(self, found: Any) -> bool:
        """Return True if it is."""
        return isinstance(found, (int, float)) and self.low <= found <= self.high

    def __str__(self) -> str:
        return f"a number from {self.low} to {self.high}"


class Present(Pattern):
    """Any value but null."""

    def matches(self, found: Any) -> bool:
        """Return True if there is one."""
        return found is not None

    def __str__(self) -> str:
        return "a value"


class Absent:
    """The absence of a member."""


def mismatches(expected: Any, found: Any, names: Names, *, exact: bool = False) -> list[str]:
    """Return how the value found differs from the expected one, one line for each difference.

    An expected object names the members that matter, unless it is data of the user.
    """
    return list(_mismatches(expected, found, names, "answer", exact=exact))


def _mismatches(
    expected: Any,
    found: Any,
    names: Names,
    place: str,
    *,
    exact: bool,
) -> Iterator[str]:
    match expected:
        case Keep(name):
            names.kept[name] = found
        case Pattern():
            if not expected.matches(found):
                yield f"{place}: expected {expected}, found {_short(found)}"
        case Mapping():
            yield from _object_mismatches(expected, found, names, place, exact=exact)
        case list():
            yield from _list_mismatches(expected, found, names, place, exact=exact)
        case _:
            if not equal(value := fill(expected, names), found):
                yield f"{place}: expected {_short(value)}, found {_short(found)}"


def _object_mismatches(
    expected: Any,
    found: Any,
    names: Names,
    place: str,
    *,
    exact: bool,
) -> Iterator[str]:
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
            yield from _mismatches(member, found[name], names, here, exact=inner)
    if exact:
        for name in found.keys() - expected.keys():
            yield f"{place}.{name}: expected nothing, found {found[name]!r}"


def _list_mismatches(
    expected: Any,
    found: Any,
    names: Names,
    place: str,
    *,
    exact: bool,
) -> Iterator[str]:
    if not isinstance(found, list) or len(found) != len(expected):
        yield f"{place}: expected {len(expected)} items, found {found!r}"
        return
    for number, (one, other) in enumerate(zip(expected, found, strict=True)):
        yield from _mismatches(one, other, names, f"{place}[{number}]", exact=exact)


def _shown(member: Any, names: Names) -> str:
    return "a value" if isinstance(member, Keep) else _short(fill(member, names))


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
