"""The composition root: builds everything, runs it until a signal, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa
from aiohttp import web
from alembic.util import CommandError

from milepost import __version__, telemetry
from milepost.config import SettingsError, durations
from milepost.domain.api_key import issue_key
from milepost.domain.errors import StoreUnavailable, Unavailable
from milepost.rpc import jwks
from milepost.rpc.certificates import TlsFiles
from milepost.rpc.interceptors.limits import local_buckets
from milepost.rpc.server import Access, Gates, RpcServer, UseCases, Wire
from milepost.rpc.tokens import Tokens
from milepost.storage import schema
from milepost.storage.credentials import KeyRing, service_key
from milepost.storage.engine import open_engine
from milepost.storage.hints import Hints
from milepost.storage.outbox import SqlOutbox
from milepost.storage.secrets import reencrypt
from milepost.storage.shared_buckets import SharedBuckets
from milepost.storage.store import SqlOperationStore
from milepost.storage.translate import translate
from milepost.tracking.changes import Changes
from milepost.tracking.claiming import LOOK_INTERVAL_S, Claiming, PendingWork
from milepost.tracking.keys import Keys
from milepost.tracking.paging import PageTokens
from milepost.tracking.pending import PendingProgress
from milepost.tracking.polling import Poller
from milepost.tracking.secrets import Secrets
from milepost.tracking.streaming import Streams
from milepost.tracking.sweeping import Sweeping, Swept
from milepost.tracking.tracker import Tracker
from milepost.tracking.watching import Watching
from milepost.tracking.webhooks import Webhooks
from milepost.web.probes import probe_app
from milepost.webhooks.attempting import Attempts
from milepost.webhooks.callbacks import CheckedCallbacks
from milepost.webhooks.dispatcher import Dispatcher, Room
from milepost.webhooks.guard import Resolver
from milepost.webhooks.masterkeys import key_beside, read_keys
from milepost.webhooks.sender import Sender
from milepost.webhooks.vault import Vault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from datetime import datetime
    from typing import Any

    from sqlalchemy.engine import Engine

    from milepost.config import Settings
    from milepost.domain.operation import Role
    from milepost.domain.ports import RateLimiter

PROBE_INTERVAL_S: Final = 0.5
"""How often the database is asked whether it is there: readiness is known within 2 s."""
POLL_INTERVAL_S: Final = 0.8
"""How often watched operations are looked at: what another replica did is seen within 1 s."""
EMBEDDED_POLL_INTERVAL_S: Final = 5.0
"""The same where there is no other replica, and only the passing of time goes unannounced."""
KEY_USE_INTERVAL_S: Final = 5.0
"""How often it is written which keys were used."""
STARTING, DRAINING = "starting", "draining"


class Readiness:
    """Whether calls should be sent here, and if not, why."""

    def __init__(self) -> None:
        """Begin not ready."""
        self.problem: str | None = STARTING

    async def watch(self, store: SqlOperationStore, server: RpcServer) -> None:
        """Follow the database until cancelled, and tell the health service of every change."""
        while True:
            try:
                await store.ping()
                problem = None
            except StoreUnavailable:
                problem = "the database does not answer"
            if problem != self.problem:
                self.problem = problem
                telemetry.log.info("readiness changed", ready=problem is None, problem=problem)
                await server.report(ready=problem is None)
            await asyncio.sleep(PROBE_INTERVAL_S)


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT, then drain: no accepted call is lost."""
    stop = _stop_signal()
    readiness = Readiness()
    url = settings.database_url.get_secret_value()
    async with contextlib.AsyncExitStack() as stack:
        tracing = telemetry.configure_traces(
            endpoint=settings.otlp_endpoint,
            ratio=settings.trace_sample_ratio,
            version=__version__,
        )
        stack.callback(tracing.stop)
        await stack.enter_async_context(_probes(settings.http_listen, readiness))
        if settings.embedded:
            stack.enter_context(_only_process(url))
            await asyncio.to_thread(prepare_embedded, url)
        engine = open_engine(url)
        if not await _schema_is_usable(engine, readiness, stop):
            return
        page_tokens = PageTokens(await asyncio.to_thread(service_key, engine, "page_tokens"))
        store = SqlOperationStore(engine, gathering=settings.gathering)
        stack.push_async_callback(store.close)
        outbox = SqlOutbox(engine, store)
        stack.push_async_callback(outbox.close)
        sending = await stack.enter_async_context(_sending(settings, outbox, tracing))
        changes = Changes()
        keys = Keys(store, limits=settings.limits, page_tokens=page_tokens)
        tokens = _tokens(settings)
        stack.push_async_callback(tokens.close)
        work = PendingWork(store)
        sweeping = Sweeping(
            store,
            changes=changes,
            work=work,
            events_kept=timedelta(seconds=settings.events_kept_seconds),
            tracing=tracing,
        )
        pending = PendingProgress()
        tracker = Tracker(
            store,
            limits=settings.limits,
            page_tokens=page_tokens,
            changes=changes,
            work=work,
            pending=pending,
            allowances=settings.allowances,
            callbacks=sending.callbacks,
        )
        limiter: RateLimiter = local_buckets()
        if settings.limits_url is not None:
            shared = SharedBuckets(settings.limits_url.get_secret_value(), limiter)
            stack.push_async_callback(shared.close)
            limiter = shared
        watching = Watching(
            store,
            store,
            changes,
            longest=settings.wait_seconds_max,
            keep_alive=settings.keep_alive_seconds,
        )
        await stack.enter_async_context(_heeded(changes, store, engine))
        webhooks = Webhooks(
            outbox,
            sending.secrets,
            limits=settings.limits,
            page_tokens=page_tokens,
            callbacks=sending.callbacks,
            prober=sending.attempts,
        )
        server = RpcServer(
            UseCases(
                tracker=tracker,
                claiming=Claiming(store, limits=settings.limits, changes=changes, work=work),
                sweeping=sweeping,
                watching=watching,
                webhooks=webhooks,
                streams=Streams(
                    tracker, store, changes=changes, pending=pending, limits=settings.limits
                ),
            ),
            Access(
                credentials=store,
                keys=keys,
                tokens=tokens,
                certificates=settings.mtls_certificates,
            ),
            settings.limits,
            Wire(
                address=settings.listen,
                request_bytes=settings.request_bytes_max,
                reflection=settings.reflection,
                tls=_tls(settings),
            ),
            tracing=tracing,
            gates=Gates(
                limiter=limiter,
                allowances=settings.allowances,
                progress_interval=timedelta(seconds=settings.progress_interval_seconds),
                calls_max=settings.calls_max,
                waiting_max=settings.waiting_calls_max,
                auth_failures_per_minute=settings.auth_failures_per_minute,
            ),
        )
        await server.start()
        _settle_heap()
        watch = asyncio.create_task(readiness.watch(store, server))
        await stack.enter_async_context(_background(settings, work, sweeping, keys))
        telemetry.log.info(
            "serving",
            listen=settings.listen,
            http_listen=settings.http_listen,
            tls=settings.tls_cert_file is not None,
            database=sa.make_url(url).render_as_string(hide_password=True),
        )
        await stop.wait()
        telemetry.log.info("draining")
        watch.cancel()
        readiness.problem = DRAINING
        await server.report(ready=False)
        await asyncio.sleep(settings.not_ready_seconds)
        work.close()
        await server.stop(settings.drain_seconds)
    telemetry.log.info("stopped")


@contextlib.asynccontextmanager
async def _background(
    settings: Settings, work: PendingWork, sweeping: Sweeping, keys: Keys
) -> AsyncIterator[None]:
    """Run the loops of this replica beside what happens inside, and end them after that."""
    rounds: tuple[tuple[str, Callable[[], Awaitable[Any]], float], ...] = (
        ("look for work", work.look, LOOK_INTERVAL_S),
        ("sweep leases", sweeping.sweep_leases, settings.lease_sweep_seconds),
        ("clean up", sweeping.clean_up, settings.cleanup_seconds),
        ("forget events", sweeping.forget_events, settings.cleanup_seconds),
        ("measure", sweeping.measure, settings.measure_seconds),
        ("note key use", keys.write_uses, KEY_USE_INTERVAL_S),
    )
    tasks = [asyncio.create_task(repeatedly(*each)) for each in rounds]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def repeatedly(task: str, once: Callable[[], Awaitable[Any]], seconds: float) -> None:
    """Do it once every so many seconds until cancelled; a failure is logged and tried again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await once()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round may do better
            expected = isinstance(error, Unavailable)
            telemetry.record_failure(task, error, expected=expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sending:
    """What sends webhooks; without master keys there is nothing to sign them with."""

    secrets: Secrets
    attempts: Attempts | None = None
    callbacks: CheckedCallbacks | None = None


@contextlib.asynccontextmanager
async def _sending(
    settings: Settings, outbox: SqlOutbox, tracing: telemetry.Tracing
) -> AsyncIterator[_Sending]:
    """Send what is due until left; what is being sent then is settled first."""
    keys = await asyncio.to_thread(master_keys, settings)
    if keys is None:
        telemetry.log.warning("webhooks are off", cause="there are no master keys")
        yield _Sending(secrets=Secrets(outbox, None))
        return
    rules, timeout = settings.callback_rules, timedelta(seconds=settings.webhook_timeout_seconds)
    room = Room(
        total=settings.webhook_concurrency,
        per_host=settings.webhook_concurrency_per_host,
        timeout=timeout,
    )
    resolver = Resolver(rules)
    sender = Sender(rules, resolver, total=timeout)
    secrets = Secrets(outbox, Vault(keys))
    schedule = durations(settings.webhook_schedule_seconds)
    attempts = Attempts(sender, secrets, rules, schedule)
    dispatcher = Dispatcher(outbox, attempts, room, tracing)
    loop = asyncio.create_task(dispatcher.run())
    try:
        yield _Sending(
            secrets=secrets,
            attempts=attempts,
            callbacks=CheckedCallbacks(rules, resolver, dispatcher.wake),
        )
    finally:
        dispatcher.finish()
        await loop
        await dispatcher.stop(room.lease.total_seconds())
        await sender.close()


def _tokens(settings: Settings) -> Tokens:
    """Return what verifies the tokens of the issuers that are trusted; there may be none."""
    trusted = {}
    for issuer in settings.trusted_issuers:
        source = (
            jwks.from_url(issuer.jwks_url)
            if issuer.jwks_url
            else jwks.from_file(Path(issuer.jwks_file or ""))
        )
        trusted[issuer.issuer] = (issuer, jwks.KeySet(issuer.issuer, source, issuer.algorithms))
    return Tokens(trusted)


def _tls(settings: Settings) -> TlsFiles | None:
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    return TlsFiles(
        certificate=settings.tls_cert_file,
        key=settings.tls_key_file,
        client_authorities=settings.tls_client_ca_file,
    )


def _settle_heap() -> None:
    """Take all that was built so far out of the garbage collector's rounds.

    Modules and statements live as long as the process. Looking at all of them again and again
    cost a third of every call.
    """
    gc.collect()
    gc.freeze()


def _stop_signal() -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets; the second ends the process."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


@contextlib.asynccontextmanager
async def _probes(address: str, readiness: Readiness) -> AsyncIterator[None]:
    if not address:
        yield
        return
    host, _, port = address.rpartition(":")
    runner = web.AppRunner(probe_app(lambda: readiness.problem), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host.strip("[]"), int(port)).start()
        yield
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def _heeded(
    changes: Changes, store: SqlOperationStore, engine: Engine
) -> AsyncIterator[None]:
    """Let listeners hear what happens: from other replicas, and by looking where nobody tells."""
    embedded = engine.dialect.name == "sqlite"
    interval = EMBEDDED_POLL_INTERVAL_S if embedded else POLL_INTERVAL_S
    poller = Poller(store, changes, interval=interval)
    polling = asyncio.create_task(poller.run())
    try:
        if embedded:
            yield
            return

        def lost() -> None:
            poller.look_now()
            changes.publish_unseen()

        hints = Hints(engine, heard=changes.hear, lost=lost)
        changes.tell_others(hints.tell)
        try:
            yield
        finally:
            await hints.close()
    finally:
        polling.cancel()


async def _schema_is_usable(engine: Engine, readiness: Readiness, stop: asyncio.Event) -> bool:
    """Return once the database has the schema that this code needs, or false at a signal."""
    needed = schema.latest()
    while not stop.is_set():
        try:
            found = await asyncio.to_thread(schema.current, engine)
            problem = f"the schema is at {found}, {needed} is needed: run milepost migrate"
        except Exception as error:
            if not isinstance(translate(error), StoreUnavailable):
                raise
            found, problem = None, "the database does not answer"
        if schema.is_usable(found):
            return True
        if problem != readiness.problem:
            readiness.problem = problem
            telemetry.log.warning("not ready", problem=problem)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PROBE_INTERVAL_S)
    return False


def master_keys(settings: Settings) -> dict[str, bytes] | None:
    """Return the keys that signing secrets are encrypted with, the current one first, if any.

    The embedded store has one of its own beside it, unless the operator gives others.

    Raises:
        SettingsError: there is a file of keys that cannot be used.
    """
    if settings.webhook_keys is not None:
        return read_keys(settings.webhook_keys.get_secret_value())
    path = settings.webhook_keys_file
    try:
        if path is not None:
            return read_keys(path.read_text(encoding="ascii"))
        if settings.embedded:
            database = _sqlite_path(settings.database_url.get_secret_value())
            path = database.with_suffix(".webhook-keys")
            return key_beside(path)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError([f"MILEPOST_WEBHOOK_KEYS_FILE: {path}: {why}"]) from None
    return None


def reencrypt_secrets(settings: Settings) -> int:
    """Encrypt every signing secret under the current master key; return how many were not."""
    keys = master_keys(settings)
    if keys is None:
        raise SettingsError(["MILEPOST_WEBHOOK_KEYS: there are no master keys"])
    with _database(settings.database_url.get_secret_value()) as engine:
        return reencrypt(engine, Vault(keys))


# --- what the command line needs of the database ---


class DatabaseError(Exception):
    """The database cannot be used for this; the text says why, without its password."""

    def __init__(self, message: str, *, away: bool = False) -> None:
        """Keep whether it is `away`, so that trying again later may help."""
        self.away = away
        super().__init__(message)


def migrate(url: str, revision: str = schema.HEAD) -> str | None:
    """Bring the schema to `revision`, or back to it; return where it is now."""
    with _database(url) as engine:
        back = revision == "base" or (schema.current(engine) or "") > revision
        if back and not revision.startswith("+"):
            schema.downgrade(url, revision)
        else:
            schema.upgrade(url, revision)
        return schema.current(engine)


def prepare_embedded(url: str) -> None:
    """Make the embedded store ready for use: its folder, and its schema."""
    _make_folder(url)
    if not schema.is_usable(schema.current(open_engine(url))):
        schema.upgrade(url)


def clean_up(url: str, *, dry_run: bool) -> Swept:
    """Make one pass over what is past its time; with `dry_run` only count it."""
    with _usable(url) as engine:
        return asyncio.run(_clean_up(engine, dry_run=dry_run))


async def _clean_up(engine: Engine, *, dry_run: bool) -> Swept:
    store = SqlOperationStore(engine)
    try:
        sweeping = Sweeping(store, changes=Changes(), work=PendingWork(store))
        return await (sweeping.preview() if dry_run else sweeping.clean_up())
    except StoreUnavailable as error:
        raise DatabaseError("database: it does not answer", away=True) from error
    finally:
        await store.close()


def create_key(
    url: str,
    *,
    subject: str,
    roles: Iterable[Role],
    functions: Iterable[str],
    lifetime: timedelta | None = None,
) -> tuple[str, str, datetime | None]:
    """Store a new API key; return its public id, the key, never shown again, and its end."""
    key, stored = issue_key(subject=subject, roles=roles, functions=functions)
    with _keys(url) as keys:
        expire_time = keys.add(stored, lifetime=lifetime)
    return stored.principal.credential_id, key, expire_time


def list_keys(url: str) -> list[dict[str, Any]]:
    """Return every API key, newest first, without secrets."""
    with _keys(url) as keys:
        return keys.rows()


def revoke_key(url: str, key_id: str) -> bool:
    """Make a key worthless; tell whether there is such a key."""
    with _keys(url) as keys:
        return keys.revoke(key_id)


@contextlib.contextmanager
def _keys(url: str) -> Iterator[KeyRing]:
    with _usable(url) as engine:
        yield KeyRing(engine)


@contextlib.contextmanager
def _usable(url: str) -> Iterator[Engine]:
    """Open a database with the schema that this code needs."""
    with _database(url) as engine:
        found, needed = schema.current(engine), schema.latest()
        usable = schema.is_usable(found)
        if not usable and url.startswith("sqlite"):
            schema.upgrade(url)
        elif not usable:
            raise DatabaseError(
                f"the schema is at {found}, {needed} is needed: run milepost migrate"
            )
        yield engine


@contextlib.contextmanager
def _database(url: str) -> Iterator[Engine]:
    """Open the database; whatever goes wrong with it inside is a `DatabaseError`."""
    try:
        if url.startswith("sqlite"):
            _make_folder(url)
        yield open_engine(url)
    except CommandError as error:
        raise DatabaseError(str(error)) from error
    except ValueError as error:
        raise DatabaseError("database: its URL cannot be understood") from error
    except (sa.exc.SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        away = isinstance(translate(error), StoreUnavailable)
        raise DatabaseError(f"database: {cause}", away=away) from error


def _sqlite_path(url: str) -> Path:
    return Path(sa.make_url(url).database or "")


def _make_folder(url: str) -> None:
    _sqlite_path(url).parent.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def _only_process(url: str) -> Iterator[None]:
    """Hold the embedded store: a second service on the same file is refused."""
    import fcntl  # noqa: PLC0415 - not on every platform, and only the embedded store needs it

    _make_folder(url)
    with _sqlite_path(url).with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            sys.exit(f"error: another milepost serves {_sqlite_path(url)}; one process at a time")
        yield
