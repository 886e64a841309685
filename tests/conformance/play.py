"""The play of a scenario: every step in all languages at once, their answers compared.

All players take each step together. So what a scenario does to the service, such as a kill,
happens to all of them at the same place, and a scenario takes the time of its slowest language.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

from tests.conformance.normal_form import differences
from tests.conformance.player import Player
from tests.conformance.scenario import SHARED, Scenario, Step
from tests.conformance.services import ServiceSet
from tests.conformance.testee import Testee

Cast = Mapping[str, tuple[Testee, Testee]]
"""The testees of the callers and of the workers of each player, by its name."""


async def play(
    scenario: Scenario, cast: Cast, services: ServiceSet | None
) -> Mapping[str, str | None]:
    """Play the scenario; return the report of each player, which is None if all was as expected."""
    async with AsyncExitStack() as stack:
        players = [
            await stack.enter_async_context(Player(name, caller, worker, scenario, services))
            for name, (caller, worker) in cast.items()
        ]
        reports: dict[str, str | None] = dict.fromkeys(cast)
        for number, step in enumerate(scenario.steps, 1):
            present = [player for player in players if not player.failures and not player.has_ended]
            await _take(step, present, services)
            for player in present:
                if player.failures:
                    place = f"{player.name}: {scenario.id}, step {number}: {step}"
                    reports[player.name] = "\n  ".join([place, *player.failures])
    return reports


async def _take(step: Step, players: Sequence[Player], services: ServiceSet | None) -> None:
    """Let all players take one step."""
    if step.actor in SHARED:
        assert services is not None
        await services.perform(step.actor, step.action)
        return
    answers = await asyncio.gather(*(player.play(step) for player in players))
    _compare(players, answers)


def _compare(players: Sequence[Player], answers: Sequence[Any]) -> None:
    """Fail the players whose answer is not that of the first one."""
    given = [
        (player, answer)
        for player, answer in zip(players, answers, strict=True)
        if answer is not None and not player.failures
    ]
    for player, answer in given[1:]:
        first, reference = given[0]
        if found := differences(reference, answer):
            line = f"the answers of {first.name} and of {player.name} differ:"
            player.failures.extend([line, *found])
