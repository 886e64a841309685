"""Every scenario in every language, and every pair of languages."""

import tomllib
from pathlib import Path

import pytest

from tests.conformance.conftest import NAMES, PAIRS
from tests.conformance.languages import BUILD_TIMEOUT_S
from tests.conformance.scenario import read_scenarios

SCENARIOS = read_scenarios()
KNOWN_FAILURES = tomllib.loads(Path(__file__).with_name("known_failures.toml").read_text())
CASES = [
    pytest.param(scenario, player, id=f"{scenario.id}-{player}")
    for scenario in SCENARIOS
    for player in (PAIRS if scenario.pairs else NAMES)
]


@pytest.mark.timeout(BUILD_TIMEOUT_S)  # the first one builds the testees, and starts its services
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("scenario", "player"), CASES)
async def test_client_acts_as_the_scenario_says(request, stage, scenario, player):
    """The answers of the testee are the expected ones, and those of all other languages."""
    reason = KNOWN_FAILURES.get(scenario.id, {}).get(player)
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    report = await stage.report(scenario, player)
    if report is not None:
        pytest.fail(f"{scenario.says}\n{report}", pytrace=False)


def test_known_failures_are_of_scenarios():
    """Every known failure names a scenario."""
    assert KNOWN_FAILURES.keys() <= {scenario.id for scenario in SCENARIOS}


def test_there_are_enough_scenarios():
    """The suite has at least 60 scenarios."""
    assert len(SCENARIOS) >= 60
