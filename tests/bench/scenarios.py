"""The jobs of callers: single calls, and a full life of fourteen calls."""

import itertools
import json
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from tests.bench import http1, messages
from tests.bench.jobs import Call, Job, Source, WrongReplyError

REPORTS = 10
"""Reports of progress in a full life: create, start, ten of these, complete, read."""


class Stock(Protocol):
    """The operations that the calls are about."""

    started: Sequence[str]

    def take(self) -> str:
        """Return an operation to complete, each only once."""


class EchoStock:
    """The one operation of the echo server, which is never used up."""

    started: Sequence[str] = (messages.ECHO_ID,)

    def take(self) -> str:
        """Return the same operation again."""
        return messages.ECHO_ID


def _expect(identity: str, payload: bytes) -> None:
    if identity.encode() not in payload:
        raise WrongReplyError(f"{identity} is not in the reply")


def _repeated(cycle: Iterator[tuple[str, Call]]) -> Source:
    """Return jobs of one call, each with the next prepared request."""

    def job() -> Job:
        identity, call = next(cycle)
        _expect(identity, (yield call))

    return job


class GrpcScenarios:
    """The jobs of callers of the gRPC API, by name."""

    def __init__(self, secret: str, stock: Stock) -> None:
        self.heads = messages.Heads(secret)
        self._stock = stock
        self._request_ids = (f"{secrets.token_hex(6)}-{n}" for n in itertools.count())

    def source(self, name: str) -> Source:
        """Return the source of jobs called `name`."""
        makers: dict[str, Callable[[], Source]] = {
            "create": lambda: self._create,
            "get": self._get,
            "update": self._update,
            "complete": lambda: self._complete,
            "life": lambda: self._life,
        }
        return makers[name]()

    def _get(self) -> Source:
        head = self.heads.get
        requests = [(x, Call(head, messages.get_request(x))) for x in self._stock.started]
        return _repeated(itertools.cycle(requests))

    def _update(self) -> Source:
        head = self.heads.update
        requests = [(x, Call(head, messages.update_request(x), 1)) for x in self._stock.started]
        return _repeated(itertools.cycle(requests))

    def _create(self) -> Job:
        request = messages.create_request(next(self._request_ids))
        payload = yield Call(self.heads.create, request, 1)
        _expect("op_", messages.created_id(payload).encode())

    def _complete(self) -> Job:
        identity = self._stock.take()
        request = messages.complete_request(identity)
        _expect(identity, (yield Call(self.heads.complete, request, 1)))

    def _life(self) -> Job:
        heads = self.heads
        request = messages.create_request(next(self._request_ids))
        identity = messages.created_id((yield Call(heads.create, request, 1)))
        _expect(identity, (yield Call(heads.start, messages.start_request(identity), 1)))
        for report in range(1, REPORTS + 1):
            update = messages.update_request(identity, report / REPORTS)
            _expect(identity, (yield Call(heads.update, update, 1)))
        _expect(identity, (yield Call(heads.complete, messages.complete_request(identity), 1)))
        _expect(identity, (yield Call(heads.get, messages.get_request(identity))))


class HttpScenarios:
    """The same full life as JSON over HTTP."""

    def __init__(self) -> None:
        self._request_ids = (f"{secrets.token_hex(6)}-{n}" for n in itertools.count())

    def source(self, name: str) -> Source:
        """Return the source of jobs called `name`; only `life` is known."""
        makers: dict[str, Source] = {"life": self._life}
        return makers[name]

    def _life(self) -> Job:
        function, request_id = messages.FUNCTION, next(self._request_ids)
        created = yield _post("/operations", {"function": function, "request_id": request_id})
        identity = json.loads(created)["id"]
        path = f"/operations/{identity}"
        _expect(identity, (yield _post(f"{path}/start", {})))
        for report in range(1, REPORTS + 1):
            body = {"progress": report / REPORTS, "message": messages.PROGRESS_MESSAGE}
            _expect(identity, (yield _post(f"{path}/progress", body)))
        _expect(identity, (yield _post(f"{path}/complete", {"result": "sha256:2c26b46b68ffc68f"})))
        _expect(identity, (yield Call(http1.request_head("GET", path), b"")))


class HttpApiScenarios:
    """The calls of `GrpcScenarios` that are measured over HTTP too."""

    def __init__(self, secret: str, stock: Stock) -> None:
        self._authorization = f"authorization: Bearer {secret}"
        self._stock = stock

    def source(self, name: str) -> Source:
        """Return the source of jobs called `name`: `get` or `update`."""
        makers: dict[str, Callable[[str], Call]] = {"get": self._get, "update": self._update}
        return _repeated(itertools.cycle([(x, makers[name](x)) for x in self._stock.started]))

    def _get(self, identity: str) -> Call:
        path = f"/v1/operations/{identity}"
        return Call(http1.request_head("GET", path, self._authorization), b"")

    def _update(self, identity: str) -> Call:
        path = f"/v1/operations/{identity}:updateProgress"
        body = {"progress": 0.5, "message": messages.PROGRESS_MESSAGE}
        head = http1.request_head("POST", path, self._authorization)
        return Call(head, json.dumps(body).encode(), 1)


def _post(path: str, body: dict[str, object]) -> Call:
    return Call(http1.request_head("POST", path), json.dumps(body).encode(), 1)
