"""The services of the scenarios: one set at a time, as the head of a scenario file describes it."""

import asyncio
import json
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role
from milepost.storage.api_keys import KeyRing
from milepost.storage.schema import upgrade
from milepost.webhooks.master_keys import new_key
from tests.certificates import SERVER, Authority
from tests.e2e.service import Service
from tests.inbox import Inbox
from tests.postgres import PostgresCluster
from tests.waiting import eventually

KNOWN: Final = frozenset({"settings", "limited", "tls", "webhooks", "replicas", "none"})
QUICK: Final = {"lease_sweep_seconds": "0.2", "lease_min_seconds": "1", "ttl_min_seconds": "1"}
"""Settings with which clocks run out soon."""
LIFETIME: Final = timedelta(milliseconds=10)


class ServiceSet:
    """The replicas of one service, with what belongs to them.

    Args:
        stack: Where they are stopped.
        head: The head of a scenario file.
        cluster: Returns the PostgreSQL of several replicas.
    """

    def __init__(self, stack: ExitStack, head: Mapping[str, Any], cluster: Any) -> None:
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        self.facts: dict[str, str] = {}
        """What a scenario may use as kept values."""
        self.inbox = stack.enter_context(Inbox()) if head.get("webhooks") else None
        settings = {
            **QUICK,
            **head.get("settings", {}),
            **(self._tls() if head.get("tls") else {}),
            **(self._webhooks(self.inbox) if self.inbox else {}),
        }
        url = self._database(head.get("replicas", 1), cluster)
        self.replicas = [
            stack.enter_context(
                Service(url, self._folder, limited=head.get("limited", False), **settings)
            )
            for _ in range(head.get("replicas", 1))
        ]
        self.facts |= {"service": self.replicas[0].address}

    def _database(self, replicas: int, cluster: Any) -> str:
        if replicas == 1:
            return f"sqlite:///{self._folder / 'milepost.db'}"
        server = cluster()
        name = f"milepost_conformance_{uuid.uuid4().hex}"
        server.create_database(name)
        upgrade(server.url(name))
        return str(server.url(name))

    def _tls(self) -> Mapping[str, str]:
        authority = Authority(self._folder)
        pair = authority.certify(*SERVER)
        caller = authority.certify()
        self.facts |= {
            "ca_file": str(authority.file),
            "other_ca_file": str(Authority(self._folder).file),
            "certificate_file": str(caller.certificate),
            "key_file": str(caller.key),
        }
        return {"tls_cert_file": str(pair.certificate), "tls_key_file": str(pair.key)}

    @staticmethod
    def _webhooks(inbox: Inbox) -> Mapping[str, str]:
        return {
            "webhook_keys": new_key(),
            "webhook_allow_http": "true",
            "webhook_allowed_networks": "127.0.0.1/32",
            "webhook_allowed_ports": str(inbox.port),
            "webhook_schedule_seconds": "0,0.1",
            "webhook_timeout_seconds": "5",
        }

    async def perform(self, actor: str, action: str) -> None:
        """Kill, stop or start the whole service, or its first replica."""
        chosen = self.replicas if actor == "service" else self.replicas[:1]
        for replica in chosen:
            await asyncio.to_thread(getattr(replica, action))

    async def restore(self) -> None:
        """Start the replicas that a scenario has left dead."""
        for replica in self.replicas:
            if replica.process is None:
                await asyncio.to_thread(replica.start)

    async def api_key(
        self,
        subject: str,
        roles: Sequence[str],
        functions: Iterable[str],
        *,
        expired: bool = False,
    ) -> str:
        """Return a new API key."""
        if expired:
            return await asyncio.to_thread(self._expired_key, subject, roles)
        return await asyncio.to_thread(self.replicas[0].api_key, subject, roles, functions)

    def _expired_key(self, subject: str, roles: Sequence[str]) -> str:
        key, stored = issue_key(subject=subject, roles=[Role(role) for role in roles])
        expires = KeyRing(self.replicas[0].engine).add(stored, lifetime=LIFETIME)
        assert expires is not None
        eventually(lambda: datetime.now(UTC) > expires, within=5, what="the end of the key")
        return key


class Services:
    """The present set of services, which the next scenarios of the same head use too."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._whole = ExitStack()
        self._head = ""
        self._present: ServiceSet | None = None
        self._postgres: PostgresCluster | None = None

    async def of(self, head: Mapping[str, Any]) -> ServiceSet | None:
        """Return the services of the head, started; None if it wants none."""
        if unknown := head.keys() - KNOWN:
            raise ValueError(f"unknown in the head of a scenario file: {', '.join(unknown)}")
        if head.get("none"):
            return None
        text = json.dumps(head, sort_keys=True)
        if text != self._head or self._present is None:
            await asyncio.to_thread(self._stack.close)
            self._present = await asyncio.to_thread(ServiceSet, self._stack, head, self._cluster)
            self._head = text
        await self._present.restore()
        return self._present

    async def close(self) -> None:
        """Stop everything."""
        await asyncio.to_thread(self._stack.close)
        await asyncio.to_thread(self._whole.close)

    def _cluster(self) -> PostgresCluster:
        if self._postgres is None:
            cluster = PostgresCluster(durable=False, in_memory=True)
            self._postgres = self._whole.enter_context(cluster)
        return self._postgres
