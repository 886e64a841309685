"""Serving: builds everything, runs it until a signal, and takes it down in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
from datetime import timedelta
from typing import TYPE_CHECKING

from milepost import __version__, telemetry
from milepost.api.services import UseCases, services_of
from milepost.config import redacted
from milepost.main.access import access_of
from milepost.main.batch_scheduling import use_batch_scheduling
from milepost.main.embedded import EmbeddedStore
from milepost.main.garbage_collection import freeze_startup_objects
from milepost.main.http_ports import HttpPorts
from milepost.main.notifications import subscribed_to_notifications
from milepost.main.open_files import max_connections, raise_open_files_limit
from milepost.main.periodic_tasks import SERVING_INTERVAL_S, background, run_periodically
from milepost.main.readiness import DRAINING, Readiness, database_is_usable
from milepost.main.signals import stop_signal
from milepost.main.supervised import reporting
from milepost.main.tls import watched_tls
from milepost.main.webhook_delivery import delivering_webhooks
from milepost.rpc.server import RpcServer, Wire
from milepost.storage.api_keys import service_key
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.telemetry import otlp
from milepost.telemetry.metrics_export import exporting_metrics
from milepost.tracking.claimer import Claimer, PendingWork
from milepost.tracking.committer import Committer
from milepost.tracking.history import History
from milepost.tracking.keys import Keys
from milepost.tracking.page_tokens import PageTokens
from milepost.tracking.progress_streams import ProgressStreams
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.sweeper import Sweeper
from milepost.tracking.tracker import Tracker
from milepost.tracking.waiting_work import WaitingWork
from milepost.tracking.watcher import Watcher
from milepost.tracking.webhooks import Webhooks
from milepost.tracking.workload_meter import WorkloadMeter

if TYPE_CHECKING:
    from milepost.config import Settings
    from milepost.domain.ports import LeaseRegister
    from milepost.main.webhook_delivery import WebhookDelivery
    from milepost.supervisor import Assignment
    from milepost.tls import TlsPair


async def serve(settings: Settings, assignment: Assignment | None = None) -> None:
    """Run the service until a signal to stop, then drain: no accepted call is lost.

    With an `assignment` it is one of several processes of a supervisor.
    """
    telemetry.log_errors_of_loop()
    if settings.batch_scheduling:
        use_batch_scheduling()
    open_files = raise_open_files_limit()
    readiness = Readiness()
    url = settings.database_url.get_secret_value()
    async with contextlib.AsyncExitStack() as stack:
        tls = await stack.enter_async_context(watched_tls(settings, readiness))
        stop = stop_signal(reload=tls.renew if tls else lambda: None)
        await stack.enter_async_context(reporting(assignment, readiness, stop))
        tracing = telemetry.configure_traces(
            otlp.collector("traces", settings.otlp_endpoint),
            telemetry.sampler_of(
                settings.trace_sample_ratio,
                is_chosen="trace_sample_ratio" in settings.model_fields_set,
            ),
            version=__version__,
        )
        stack.callback(tracing.stop)
        await stack.enter_async_context(
            exporting_metrics(
                settings.otlp_endpoint,
                version=__version__,
                process=None if assignment is None else assignment.number,
            )
        )
        ports = await stack.enter_async_context(
            HttpPorts(settings, readiness, tls, has_supervisor=assignment is not None)
        )
        engine = open_engine(url)
        if not await database_is_usable(
            engine,
            readiness,
            stop,
            embedded=stack.enter_context(EmbeddedStore(url)) if settings.embedded else None,
            allow_data_loss=settings.allow_data_loss,
        ):
            return
        page_tokens = PageTokens(await asyncio.to_thread(service_key, engine, "page_tokens"))
        batchers = Batchers(
            engine,
            batching=settings.batching,
            allow_data_loss=settings.allow_data_loss,
            queue_timeout_s=settings.database_timeout_seconds,
        )
        stack.push_async_callback(batchers.close)
        await batchers.connect()
        stores = Stores(batchers)
        sending = await stack.enter_async_context(delivering_webhooks(settings, stores, tracing))
        keys = Keys(
            stores.keys,
            limits=settings.limits,
            page_tokens=page_tokens,
            reserved_subjects=settings.reserved_subjects,
        )
        access = await stack.enter_async_context(
            access_of(settings, stores.keys, keys.note_use, readiness)
        )
        subscriptions, work = Subscriptions(), PendingWork(stores.work)
        await stack.enter_async_context(
            subscribed_to_notifications(subscriptions, stores.history, engine)
        )
        use_cases = _use_cases(
            settings,
            stores,
            sending,
            page_tokens=page_tokens,
            subscriptions=subscriptions,
            work=work,
            keys=keys,
            leases=access.rate_limits.leases,
            tracing=tracing,
        )
        services = services_of(use_cases, settings.limits)
        server = RpcServer(
            services,
            use_cases,
            access,
            _wire(settings, tls, open_files, shares_port=assignment is not None),
            tracing=tracing,
        )
        await server.start()
        await ports.serve(services, access, tracing, open_files=open_files)
        freeze_startup_objects()
        watch = asyncio.create_task(readiness.watch(batchers, server))
        # It ends when the replica drains, unlike the other tasks: then it takes no more renewals.
        note = asyncio.create_task(
            run_periodically(
                "note serving", use_cases.sweeper.note_serving, SERVING_INTERVAL_S, at_once=True
            )
        )
        await stack.enter_async_context(
            background(
                settings,
                work=work,
                waiting=WaitingWork(stores.work, work),
                sweeper=use_cases.sweeper,
                keys=keys,
                meter=WorkloadMeter(stores.workload),
            )
        )
        telemetry.log.info(
            "serving",
            listen=settings.listen,
            http_listen=settings.http_listen,
            tls=tls is not None,
            open_files=open_files,
            database=redacted("database_url", url),
        )
        await stop.wait()
        telemetry.log.info("draining")
        watch.cancel()
        note.cancel()
        readiness.problem = DRAINING
        await server.report(ready=False)
        await asyncio.sleep(settings.not_ready_seconds)
        work.close()
        await server.drain(settings.drain_seconds)
    telemetry.log.info("stopped")
    _end_process()


def _end_process() -> None:
    """End the process at once, which closes its connections.

    An orderly end of gRPC would answer CANCELLED to calls that still arrive. Everything else has
    been closed before.
    """
    telemetry.finish_log()
    os._exit(0)


def _use_cases(
    settings: Settings,
    stores: Stores,
    sending: WebhookDelivery,
    *,
    page_tokens: PageTokens,
    subscriptions: Subscriptions,
    work: PendingWork,
    keys: Keys,
    leases: LeaseRegister,
    tracing: telemetry.Tracing,
) -> UseCases:
    """Return what the services serve."""
    operations, limits = stores.operations, settings.limits
    committer = Committer(operations, subscriptions, work, leases)
    streams = ProgressStreams(committer, operations, subscriptions=subscriptions, limits=limits)
    tracker = Tracker(
        operations,
        committer,
        limits=limits,
        page_tokens=page_tokens,
        work=work,
        pending_progress=streams.pending_progress,
        allowances=settings.allowances,
        callbacks=sending.callbacks,
    )
    return UseCases(
        tracker=tracker,
        history=History(operations, stores.history, limits=limits, page_tokens=page_tokens),
        claimer=Claimer(stores.work, committer, limits=limits, work=work),
        sweeper=Sweeper(
            stores.sweeps,
            subscriptions=subscriptions,
            work=work,
            event_retention=timedelta(seconds=settings.events_kept_seconds),
            tracing=tracing,
        ),
        streams=streams,
        watcher=Watcher(
            stores.operations,
            stores.history,
            subscriptions,
            max_wait=settings.wait_seconds_max,
            keep_alive=settings.keep_alive_seconds,
        ),
        webhooks=Webhooks(
            stores.deliveries,
            sending.secrets,
            limits=limits,
            page_tokens=page_tokens,
            callbacks=sending.callbacks,
            prober=sending.attempts,
        ),
        keys=keys,
    )


def _wire(settings: Settings, tls: TlsPair | None, open_files: int, *, shares_port: bool) -> Wire:
    return Wire(
        address=settings.listen,
        connections=max_connections(open_files),
        request_bytes=settings.request_bytes_max,
        reflection=settings.reflection,
        batching=settings.batching,
        tls=tls,
        shares_port=shares_port,
    )
