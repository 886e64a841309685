"""How much a principal may do: calls of each kind in a minute, and operations that are active."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, TypeAlias

from milepost.domain.subject import subject_problem

MINUTE: Final = timedelta(seconds=60)
MAX_COUNT: Final = 2**31 - 1


BucketKey: TypeAlias = tuple[str, ...]
"""Key of a token bucket: a word for the limit, and its subject."""


class RateLimitClass(StrEnum):
    """Class of calls that share a rate limit. Each principal has one bucket for each class."""

    CREATES = "creates"
    LISTS = "lists"
    READS = "reads"
    CHANGES = "changes"
    """Other changes of callers and admins: cancel, delete, secrets, keys."""
    WORKER_WRITES = "worker_writes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many at once, and as many again in each period."""

    count: int
    period: timedelta = MINUTE
    interval_s: float = field(init=False, repr=False)
    """The time in which one comes back, in seconds."""
    period_s: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Work out what every call needs."""
        object.__setattr__(self, "period_s", self.period.total_seconds())
        object.__setattr__(self, "interval_s", self.period_s / self.count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Rate limits and quota of one principal. All fields but `active` are calls per minute."""

    creates: int = 100
    lists: int = 30
    reads: int = 600
    changes: int = 600
    worker_writes: int = 6_000
    active: int = 10
    """Operations that are pending or processing, at once."""

    def rate(self, kind: RateLimitClass) -> Rate:
        """Return how many calls of a kind are allowed."""
        return Rate(count=getattr(self, kind.value))


NAMES: Final = tuple(each.name for each in dataclasses.fields(Allowance))


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowances:
    """Allowances of all principals: a default, and exceptions by subject."""

    default: Allowance = Allowance()
    by_subject: Mapping[str, Allowance] = field(default_factory=dict)

    def of(self, subject: str) -> Allowance:
        """Return what this principal may do."""
        return self.by_subject.get(subject, self.default)


def read_allowances(text: str, default: Allowance) -> tuple[dict[str, Allowance], list[str]]:
    """Return the allowances of a JSON object of objects by subject, and every problem with it."""
    try:
        given = json.loads(text)
    except ValueError as error:
        return {}, [f"is no JSON: {error}"]
    if not isinstance(given, dict):
        return {}, ["must be an object of objects by subject"]
    found: dict[str, Allowance] = {}
    problems: list[str] = []
    for subject, numbers in given.items():
        wrong = _problems(subject, numbers)
        problems += [f"{subject}: {problem}" for problem in wrong]
        if not wrong:
            found[subject] = dataclasses.replace(default, **numbers)
    return found, problems


def _problems(subject: str, numbers: Any) -> list[str]:
    if problem := subject_problem(subject):
        return [f"the subject {problem}"]
    if not isinstance(numbers, dict):
        return ["must be an object such as {'creates': 500, 'active': 100}"]
    strange = [f"{name} is not one of {', '.join(NAMES)}" for name in numbers if name not in NAMES]
    return strange + [
        f"{name} must be a whole number from 1 to {MAX_COUNT}"
        for name, number in numbers.items()
        if name in NAMES and (type(number) is not int or not 1 <= number <= MAX_COUNT)
    ]
