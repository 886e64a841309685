"""The testees and the services of the conformance suite, started once for all scenarios."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from tests.conformance import languages
from tests.conformance.play import play
from tests.conformance.scenario import Scenario
from tests.conformance.services import Services
from tests.conformance.testee import Testee

LANGUAGES = languages.read_languages()
NAMES = languages.selected(LANGUAGES)
PAIRS = [f"{caller} for {worker}" for caller in NAMES for worker in NAMES]


class Stage:
    """The running testees and services, and the reports of the scenarios that were played."""

    def __init__(self, testees: Mapping[str, Testee]) -> None:
        self.testees = testees
        self.services = Services()
        self._reports: dict[str, Mapping[str, str | None]] = {}

    async def report(self, scenario: Scenario, player: str) -> str | None:
        """Return the report of one player; the first call plays the scenario with all of them."""
        if scenario.id not in self._reports:
            self._reports[scenario.id] = await self._play(scenario)
        return self._reports[scenario.id][player]

    async def _play(self, scenario: Scenario) -> Mapping[str, str | None]:
        names = PAIRS if scenario.pairs else NAMES
        cast = {}
        for name in names:
            caller, _, worker = name.partition(" for ")
            cast[name] = self.testees[caller], self.testees[worker or caller]
        return await play(scenario, cast, await self.services.of(scenario.service))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    """The testees of all languages, built and started."""
    chosen = [language for language in LANGUAGES if language.name in NAMES]
    assert len(chosen) == len(NAMES), f"{languages.VARIABLE} names unknown languages: {NAMES}"
    for language in chosen:
        assert language.obstacle is None, f"{language.name}: {language.obstacle}"
    await asyncio.gather(*(asyncio.to_thread(language.prepare) for language in chosen))
    async with AsyncExitStack() as stack:
        testees = {
            language.name: await stack.enter_async_context(Testee(language)) for language in chosen
        }
        found = Stage(testees)
        try:
            yield found
        finally:
            await found.services.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which languages were tested, and which were not."""
    terminalreporter.section("clients")
    for line in languages.summary(LANGUAGES, NAMES):
        terminalreporter.line(line)
