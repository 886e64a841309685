"""The speed of each client, compared with that of its bare stub in the same process.

    python -m tests.conformance.speed [--rounds 7] [--seconds 2] [--languages python,go]

A testee runs its loops against an echo server: calls of one kind, and progress of many operations
on one stream. The server has the first core, the testee the last one. A rate is the number of calls
per second of CPU time of the testee, which other work on the machine disturbs least. The rounds of
client and stub are paired, in either order; the ratios are medians.
"""

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Final

from tests.conformance.languages import Language, read_languages, selected
from tests.conformance.testee import Testee

API_KEY: Final = "mp_bench_0123456789abcdef"
CONCURRENCY: Final = {"unary": 32, "stream": 50}
"""Calls in flight, and operations on the stream, each with ten reports in a second."""
WARM_UP_S: Final = 1.0
TARGET: Final = 0.8
MIN_ARRIVED: Final = 0.5
"""Share of the reports that must reach the server: the newest of an operation replaces others."""


class Echo:
    """The echo server, as a process on the first core."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.conformance.echo"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, {min(os.sched_getaffinity(0))})
        self.address = self._read()

    def updates(self) -> int:
        """Return the number of updates since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._read())

    def stop(self) -> None:
        """End the server."""
        self._process.communicate(timeout=10)

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


async def run(testee: Testee, echo: Echo, loop: str, seconds: float) -> tuple[float, float]:
    """Return the calls per second of CPU time, and per second, of one loop."""
    arguments = {
        "address": echo.address,
        "api_key": API_KEY,
        "functions": [f"bench-{random.random()}"],
        "loop": loop,
        "seconds": seconds,
        "concurrency": CONCURRENCY[loop.partition("_")[0]],
    }
    echo.updates()
    answer = await testee.perform("bench", arguments)
    assert "ok" in answer, answer
    found: dict[str, Any] = dict(answer["ok"])
    if loop.startswith("stream"):
        arrived = echo.updates()
        share = arrived / found["calls"]
        assert share >= MIN_ARRIVED or seconds == WARM_UP_S, f"{share:.0%} of the reports arrived"
        found["calls"] = arrived
    return found["calls"] / found["cpu_seconds"], found["calls"] / found["seconds"]


async def compare(
    testee: Testee, echo: Echo, kind: str, *, rounds: int, seconds: float
) -> tuple[float, float, float, float]:
    """Return the medians of client, stub and ratio by CPU time, and of the ratio by time."""
    pairs = []
    for loop in (kind, f"{kind}_stub"):
        await run(testee, echo, loop, WARM_UP_S)
    for _ in range(rounds):
        loops = [kind, f"{kind}_stub"]
        random.shuffle(loops)
        found = {loop: await run(testee, echo, loop, seconds) for loop in loops}
        pairs.append((found[kind], found[f"{kind}_stub"]))
    return (
        statistics.median(client[0] for client, _ in pairs),
        statistics.median(stub[0] for _, stub in pairs),
        statistics.median(client[0] / stub[0] for client, stub in pairs),
        statistics.median(client[1] / stub[1] for client, stub in pairs),
    )


async def measure(
    languages: Sequence[Language], *, rounds: int, seconds: float
) -> dict[tuple[str, str], float]:
    """Print the table of all languages, and return the ratios."""
    ratios = {}
    echo = Echo()
    print("| language | loop | client | bare stub | ratio | ratio of the rates |")
    print("| --- | --- | --- | --- | --- | --- |")
    try:
        for language in languages:
            language.prepare()
            async with Testee(language) as testee:
                testee.pin(max(os.sched_getaffinity(0)))
                for kind in CONCURRENCY:
                    client, stub, ratio, rate = await compare(
                        testee, echo, kind, rounds=rounds, seconds=seconds
                    )
                    ratios[language.name, kind] = ratio
                    print(
                        f"| {language.name} | {kind} | {client:,.0f} | {stub:,.0f} "
                        f"| {ratio:.2f} | {rate:.2f} |",
                        flush=True,
                    )
    finally:
        echo.stop()
    return ratios


def main() -> None:
    """Measure, and fail if a ratio is below the target."""
    parser = argparse.ArgumentParser(description="Compare clients with their bare stubs.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--languages", default=None)
    options = parser.parse_args()
    languages = read_languages()
    names = options.languages.split(",") if options.languages else selected(languages)
    chosen = [language for language in languages if language.name in names]
    ratios = asyncio.run(measure(chosen, rounds=options.rounds, seconds=options.seconds))
    if slow := [key for key, ratio in ratios.items() if ratio < TARGET]:
        sys.exit(f"below {TARGET}: {', '.join(' '.join(key) for key in slow)}")


if __name__ == "__main__":
    main()
