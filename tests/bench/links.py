"""What authentication and limits add to each call, measured in this process, without a server.

``python -m tests.bench.links`` prints it, beside the budget: a tenth of an empty unary call.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role
from milepost.domain.ports import RateLimiter, StoredKey
from milepost.domain.rates import Allowance, Allowances
from milepost.rpc.interceptors.auth import Auth
from milepost.rpc.interceptors.limits import RateLimits
from milepost.storage.shared_buckets import SharedBuckets
from milepost.tracking.buckets import LocalBuckets
from tests.redis import RedisServer
from tests.waiting import until

METHOD: Final = "milepost.v1.OperationService/GetOperation"
EMPTY_CALL_US: Final = 200.0
"""An empty unary call of grpc.aio costs that much of one core, as the benchmark shows."""
BUDGET_US: Final = EMPTY_CALL_US / 10
CALLS: Final = 20_000
ROUNDS: Final = 7
AT_ONCE: Final = 32
PLENTY: Final = Allowances(default=Allowance(reads=10**9))


class OneKey:
    """A store of one key."""

    def __init__(self) -> None:
        self.key, self._stored = issue_key(subject="bench", roles=[Role.CALLER])

    async def find_key(self, _key_id: str) -> StoredKey | None:
        """The key."""
        return self._stored


class Incoming:
    """A call as the links get it."""

    method = METHOD
    streams = False

    def __init__(self, key: str) -> None:
        self.metadata = {"authorization": f"Bearer {key}"}

    def peer(self) -> str:
        """Where it comes from."""
        return "ipv4:127.0.0.1:1"


async def _nothing(_call: Any, _request: Any, _context: Any) -> None:
    return None


def through(limiter: RateLimiter | None) -> Callable[[], Awaitable[Any]]:
    """One call through authentication and limits, or through neither without a limiter."""
    keys = OneKey()
    call: Any = Incoming(keys.key)
    if limiter is None:
        return lambda: _nothing(call, None, call)
    auth, limits = Auth(keys), RateLimits(limiter, PLENTY)

    async def limited(call: Any, request: Any, context: Any) -> Any:
        return await limits.around(_nothing, call, request, context)

    return lambda: auth.around(limited, call, None, call)


async def cost(one: Callable[[], Awaitable[Any]], calls: int, at_once: int = 1) -> float:
    """The time of one call, in microseconds of this process; the median of the rounds."""

    async def row() -> None:
        for _ in range(calls // at_once):
            await one()

    found = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        await asyncio.gather(*(row() for _ in range(at_once)))
        found.append((time.process_time() - begun) / calls * 1e6)
    return statistics.median(found)


async def measure(calls: int = CALLS) -> dict[str, float]:
    """What the links add to a call, in microseconds of the processor, by where limits are."""
    nothing = await cost(through(None), calls)
    found = {"in the process": await cost(through(LocalBuckets()), calls) - nothing}
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as redis:
        shared = SharedBuckets(redis.url, LocalBuckets())
        try:
            await until(lambda: shared.is_shared)
            one = through(shared)
            found[f"in Redis, {AT_ONCE} callers"] = await cost(one, calls // 10, AT_ONCE) - nothing
        finally:
            await shared.close()
    return found


def main() -> None:
    """Print it."""
    for where, microseconds in asyncio.run(measure()).items():
        share = microseconds / EMPTY_CALL_US
        print(f"authentication and limits {where}: {microseconds:.1f} µs, {share:.1%} of a call")


if __name__ == "__main__":
    main()
