"""Settings as the service loads them: their entries and their problems."""

from typing import Any

import pytest

from milepost import config


def problems() -> list[str]:
    """Return the problems that `load` reports."""
    with pytest.raises(config.SettingsError) as caught:
        config.load()
    assert str(caught.value) == "; ".join(caught.value.problems)
    return caught.value.problems


def entry(name: str) -> Any:
    """Return the entry of one setting in check-config."""
    return next(item for item in config.entries(config.load()) if item.name == name)


def problems_or_none() -> list[str]:
    """Return the problems that `load` reports, if any."""
    try:
        config.load()
    except config.SettingsError as error:
        return error.problems
    return []
