"""The commands of the testee, each performed with the public client."""

from collections.abc import AsyncIterator
from itertools import count
from typing import Any, Final

from milepost_client import Milepost, read_tls, webhooks
from testee.bench import bench
from testee.values import (
    Unsupported,
    decode,
    decode_arguments,
    decode_result,
    encode,
    encode_data,
)
from testee.workers import RemoteWorker, exception_of

CALLS: Final = {
    "create", "get", "wait", "cancel", "delete", "claim", "start", "update_progress", "complete",
    "fail", "release", "acknowledge_cancellation", "signing_secrets", "rotate_signing_secret",
    "redeliver", "send_test_webhook",
}  # fmt: skip
"""The calls that the testee makes as they are, with the arguments of the command."""
STREAMS: Final = {"list", "events", "watch", "deliveries"}
OWN: Final = {"id", "call", "client"}
"""The members of a command beside the arguments of its call."""


class Commands:
    """The commands, and what they refer to by handles."""

    def __init__(self) -> None:
        self._handles: dict[str, Any] = {}
        self._tokens: dict[str, str] = {}
        self._numbers = count(1)

    async def perform(self, command: dict[str, Any]) -> Any:
        """Return the result of one command.

        Raises:
            Unsupported: There is no such command, or the language has no such value.
            Exception: The error of the client.
        """
        name = command["call"]
        if name in CALLS:
            return await self._call(command)
        if name in STREAMS:
            return {"stream": self._put(self._client_call(command))}
        own: Any = getattr(self, f"_{name}", None)
        if own is None:
            raise Unsupported
        return await own(command)

    def _put(self, value: Any) -> str:
        handle = f"handle-{next(self._numbers)}"
        self._handles[handle] = value
        return handle

    def _client_call(self, command: dict[str, Any]) -> Any:
        arguments = decode_arguments({n: v for n, v in command.items() if n not in OWN})
        return getattr(self._handles[command["client"]], command["call"])(**arguments)

    async def _call(self, command: dict[str, Any]) -> Any:
        answer = await self._client_call(command)
        if command["call"] == "claim":
            return {"operations": encode(answer)}
        return {} if answer is None else encode(answer)

    async def _connect(self, command: dict[str, Any]) -> Any:
        files = {n: command[n] for n in ("ca_file", "certificate_file", "key_file") if n in command}
        names = ("api_key", "insecure", "deadline")
        options: dict[str, Any] = {n: command[n] for n in names if n in command}
        handle = self._put(None)
        if "token" in command:
            self._tokens[handle] = command["token"]
            options["token"] = lambda: self._tokens[handle]
        tls = read_tls(**files) if files else None
        client = Milepost(command["address"], tls=tls, **options)
        self._handles[handle] = await client.open()
        return {"client": handle}

    async def _set_token(self, command: dict[str, Any]) -> Any:
        self._tokens[command["client"]] = command["token"]
        return {}

    async def _disconnect(self, command: dict[str, Any]) -> Any:
        await self._handles[command["client"]].close()
        return {}

    async def _result(self, command: dict[str, Any]) -> Any:
        result = await self._client_call(command)
        if result is None:  # absent, or null
            client: Milepost = self._handles[command["client"]]
            operation = await client.get(decode(command["operation_id"]))
            return {"result": None} if operation.has_result else {}
        return {"result": encode_data(result)}

    async def _next(self, command: dict[str, Any]) -> Any:
        stream: AsyncIterator[Any] = self._handles[command["stream"]]
        try:
            return {"item": encode(await anext(stream))}
        except StopAsyncIteration:
            return {"end": True}

    async def _close(self, command: dict[str, Any]) -> Any:
        await self._handles[command["stream"]].aclose()
        return {}

    async def _worker_start(self, command: dict[str, Any]) -> Any:
        options = {n: v for n, v in command.items() if n not in OWN | {"functions"}}
        client = self._handles[command["client"]]
        return {"worker": self._put(RemoteWorker(client, command["functions"], options))}

    async def _worker_next(self, command: dict[str, Any]) -> Any:
        held = await self._handles[command["worker"]].next()
        found = {"work": self._put(held), "operation": encode(held.work.operation)}
        if held.work.resumed_from is not None:
            found["checkpoint"] = encode_data(held.work.resumed_from)
        return found

    async def _work_progress(self, command: dict[str, Any]) -> Any:
        names = ("progress", "message", "checkpoint")
        arguments = {name: decode(command[name]) for name in names if name in command}
        await self._handles[command["work"]].work.progress(**arguments)
        return {}

    async def _work_state(self, command: dict[str, Any]) -> Any:
        held = self._handles[command["work"]]
        return {"stopped": held.stopped, "cancel_requested": held.work.cancel_requested.is_set()}

    async def _work_return(self, command: dict[str, Any]) -> Any:
        self._handles[command["work"]].end(decode_result(command))
        return {}

    async def _work_throw(self, command: dict[str, Any]) -> Any:
        self._handles[command["work"]].end(exception_of(command))
        return {}

    async def _worker_stop(self, command: dict[str, Any]) -> Any:
        await self._handles[command["worker"]].stop()
        return {}

    async def _bench(self, command: dict[str, Any]) -> Any:
        return await bench(command)

    async def _verify_webhook(self, command: dict[str, Any]) -> Any:
        body = command["body"].encode()
        return {"content": webhooks.verify(body, command["headers"], command["secrets"])}
