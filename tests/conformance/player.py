"""A player of a scenario: the testees of one language, or of a pair, and what they have around."""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Self

from tests import http2_proxy
from tests.conformance.normal_form import normal_form
from tests.conformance.patterns import Keep, Names, fill, mismatches
from tests.conformance.scenario import ROLES, WORKERS, Scenario, Step, shown
from tests.conformance.script import answer, received
from tests.conformance.services import ServiceSet
from tests.conformance.testee import Testee
from tests.unit.client_script import API_KEY, serving

WITHOUT_CLIENT: Final = frozenset({
    "connect", "next", "close", "worker_next", "work_progress", "work_state", "work_return",
    "work_throw", "worker_stop", "verify_webhook", "no_such_call",
})  # fmt: skip
HANDLES: Final = frozenset({"connect", "list", "events", "watch", "deliveries", "worker_start"})
"""The calls whose answer is a handle, which is not compared."""
REPEAT_S: Final = 20.0
PAUSE_S: Final = 0.02
DISCONNECT_S: Final = 10.0
DEADLINE_S: Final = 10.0


class Player:
    """One run of a scenario.

    Args:
        name: The language, or the pair.
        caller: The testee of the callers.
        worker: The testee of the workers.
        scenario: The scenario.
        services: The services of the scenario, or None.
    """

    def __init__(
        self,
        name: str,
        caller: Testee,
        worker: Testee,
        scenario: Scenario,
        services: ServiceSet | None,
    ) -> None:
        self.name = name
        self.failures: list[str] = []
        self.has_ended = False
        self._caller, self._worker = caller, worker
        self._scenario = scenario
        self._services = services
        self._names = Names(uuid.uuid4().hex[:12])
        self._clients: dict[str, str] = {}
        self._begun: dict[str, asyncio.Task[Mapping[str, Any]]] = {}
        self._around = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start what the scenario needs around this player."""
        if self._services is not None:
            self._names.kept |= self._services.facts
            if self._services.inbox is not None:
                self._names.kept["inbox"] = self._services.inbox.url(f"/{self._names.word}")
        else:
            self.scripted = await self._around.enter_async_context(serving())
            self._names.kept["service"] = self.scripted.address
        service = self._names.kept["service"]
        self.proxy = await self._around.enter_async_context(http2_proxy.http2_proxy(service))
        self._names.kept["proxy"] = self.proxy.address
        return self

    async def __aexit__(self, *_error: object) -> None:
        """End what still goes on."""
        for task in self._begun.values():
            task.cancel()
        await asyncio.gather(*self._begun.values(), return_exceptions=True)
        with contextlib.suppress(AssertionError, TimeoutError):
            await asyncio.wait_for(
                asyncio.gather(
                    *(
                        self._testee(person).perform("disconnect", {"client": client})
                        for person, client in self._clients.items()
                    )
                ),
                DISCONNECT_S,
            )
        await self._around.aclose()

    async def play(self, step: Step) -> Any:
        """Perform one step; return the normal form of its answer, or None without a comparison.

        A difference from what was expected becomes one of the `failures`.
        """
        try:
            return await self._play(step)
        except AssertionError as failure:
            self.failures.append(str(failure))
        except Exception as failure:  # noqa: BLE001 - a mistake of a scenario fails it alone
            self.failures.append(repr(failure))
        return None

    async def _play(self, step: Step) -> Any:
        if step.actor not in {*ROLES, "anyone", "end"}:
            found = await self._command(step.actor, step.action)
            self._expect(step, found)
            return None
        begun = time.monotonic()
        if step.begins:
            sending = await self._sending(step)
            self._begun[step.begins] = asyncio.create_task(sending)
            return None
        found = await (self._begun[step.ends] if step.ends else self._answer(step))
        if found.get("unsupported"):
            self.has_ended = self.name in step.unsupported
            assert self.has_ended, "the testee does not support this"
            return None
        self._expect(step, found)
        if step.within is not None:
            low, high = step.within
            taken = time.monotonic() - begun
            assert low <= taken <= high, f"it took {taken:.2f} s, not {low} to {high} s"
        is_handle = step.action in HANDLES
        return None if is_handle else normal_form(found, self._names.word, step.differs)

    async def _answer(self, step: Step) -> Mapping[str, Any]:
        """Return the answer to the call of the step, once it is as expected if it is repeated."""
        end = time.monotonic() + REPEAT_S
        while True:
            found: Mapping[str, Any] = await (await self._sending(step))
            if not step.repeat or time.monotonic() > end or not self._problems(step, found):
                return found
            await asyncio.sleep(PAUSE_S)

    async def _sending(self, step: Step) -> Any:
        arguments = fill(step.arguments, self._names)
        person = step.actor if step.actor in ROLES else "alice"
        if step.action == "connect":
            arguments = await self._connection(person, arguments)
        elif step.action not in WITHOUT_CLIENT and "client" not in arguments:
            arguments = {"client": await self._client(person), **arguments}
        return self._testee(person).perform(step.action, arguments)

    def _testee(self, person: str) -> Testee:
        return self._worker if person in WORKERS else self._caller

    async def _client(self, person: str) -> str:
        """Return the handle of the client of the person, which connects at the first call."""
        if person not in self._clients:
            special = self._scenario.people.get(person, {}).get("connect", {})
            arguments = await self._connection(person, fill(special, self._names))
            connected = await self._testee(person).perform("connect", arguments)
            assert "ok" in connected, f"{person} could not connect: {connected}"
            self._clients[person] = connected["ok"]["client"]
        return self._clients[person]

    async def _connection(self, person: str, special: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of `connect`: the usual ones, and the special ones; null removes."""
        kept = self._names.kept
        arguments = {
            "address": kept["proxy" if person in self._scenario.proxy else "service"],
            "deadline": DEADLINE_S,
            **({"ca_file": kept["ca_file"]} if "ca_file" in kept else {}),
            **({} if "api_key" in special else {"api_key": await self._key(person)}),
            **special,
        }
        return {name: value for name, value in arguments.items() if value is not None}

    async def _key(self, person: str) -> str:
        known = self._names.kept.get(f"key of {person}")
        if known is not None:
            return str(known)
        if self._services is None:
            return API_KEY
        of_person = self._scenario.people.get(person, {})
        roles = of_person.get("roles", ROLES[person])
        functions = of_person.get("functions", ["*"] if "WORKER" in roles else [])
        key = await self._services.api_key(
            f"{person}-{self._names.word}",
            roles,
            fill(functions, self._names),
            expired=of_person.get("expired", False),
        )
        self._names.kept[f"key of {person}"] = key
        return key

    async def _command(self, actor: str, action: Any) -> Mapping[str, Any]:
        """Perform a command to what is around this player, and return its answer."""
        match actor:
            case "proxy":
                self._proxy(action)
            case "script":
                self.scripted.script.extend(map(answer, fill(action, self._names)))
            case "received":
                return {"ok": received(self.scripted)}
            case "inbox":
                return {"ok": await asyncio.to_thread(self._inbox, action)}
            case "key":
                assert self._services is not None
                subject = f"{action['of']}-{self._names.word}"
                key = await self._services.api_key(subject, ROLES[action["of"]], ["*"])
                self._names.kept[action["keep"]] = key
        return {"ok": {}}

    def _proxy(self, action: str) -> None:
        reset = http2_proxy.reset
        match action.split():
            case ["cut"]:
                self.proxy.cut()
            case ["lose", "the", "next", "answer"]:
                self.proxy.lose_next_answer = True
            case ["reset", "the", "streams"]:
                self.proxy.end_streams(reset(http2_proxy.INTERNAL_ERROR))
            case ["cancel", "the", "streams"]:
                self.proxy.end_streams(reset(http2_proxy.CANCEL))
            case ["answer", "with", "page", status]:
                self.proxy.ending = http2_proxy.page(int(status))
            case ["forward"]:
                self.proxy.ending = None
            case ["to", "the", "other", "replica"]:
                assert self._services is not None
                self.proxy.aim(self._services.replicas[1].address)
                self.proxy.cut()
            case _:
                raise AssertionError(f"the proxy cannot {action!r}")

    def _inbox(self, action: Any) -> Any:
        """Set the answers of the receiver, or return the webhooks that it has got."""
        assert self._services is not None
        assert self._services.inbox is not None
        inbox, path = self._services.inbox, f"/{self._names.word}"
        if "answers" in action:
            inbox.answer(path, *action["answers"])
            return {}
        hooks = inbox.wait_for(path, action["webhooks"])
        headers = [{name.lower(): value for name, value in hook.headers.items()} for hook in hooks]
        return {
            "bodies": [hook.body.decode() for hook in hooks],
            "headers": headers,
            "types": [hook.json["type"] for hook in hooks],
        }

    def _expect(self, step: Step, found: Mapping[str, Any]) -> None:
        if problems := self._problems(step, found):
            raise AssertionError("\n  ".join([*problems, f"the whole answer: {shown(found)}"]))

    def _problems(self, step: Step, found: Mapping[str, Any]) -> list[str]:
        expected = step.expected or {"ok": Keep("answer")}
        return mismatches(expected, found, self._names)
