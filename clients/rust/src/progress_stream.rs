//! The progress stream that all work of a client shares: it reconnects, and renews all leases.
//!
//! What is due goes out in one message, the operation first whose lease runs out first, and the next
//! message follows after a short pause. After a disconnection the newest report of every operation is sent again, because the service
//! notifies a stream of a cancel only if the operation was reported on it. After a rate limit the
//! reports wait for a while, and only leases are renewed, which the service does not limit.
//!
//! It runs on the thread of the connections, so that handlers which block lose no lease.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::stream;
use http::uri::PathAndQuery;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{Request, client::Grpc};

use crate::{
    backoff::{Backoff, MAX_PAUSE},
    calls::undecodable,
    codec::ProtoCodec,
    connection::Connection,
    error::{Error, Kind, Result},
    held::{Held, PackedReport},
    operation::Operation,
    outbox::{Next, Outbox},
    proto::{StreamProgressRequest, StreamProgressResponse},
    refusal::rebuild,
    signals::Signals,
};

const PATH: &str = "/milepost.v1.WorkerService/StreamProgress";
/// Life of a stream after which the pauses begin anew.
const STEADY_TIME: Duration = Duration::from_secs(10);
/// Time between two messages: what is reported within it is one message.
const MESSAGE_PACE: Duration = Duration::from_millis(50);
/// The shortest pause after a rate limit, if a lease is to be renewed before its end.
const MIN_LIMITED_PAUSE: Duration = Duration::from_millis(250);
/// How long a stream without operations stays open.
const IDLE_TIME: Duration = Duration::from_secs(1);
/// How long `close` waits for the acknowledgements of the last reports.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a last report may wait for its place on the stream.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The reports of all operations, and the stream that sends them.
#[derive(Debug)]
pub(crate) struct ProgressStream {
    connection: Connection,
    outbox: Mutex<Outbox>,
    /// Notified when there may be something to send.
    wake: Notify,
    is_running: AtomicBool,
    was_answered: AtomicBool,
    /// Notified at the end of the last stream.
    ended: Notify,
    /// Cancelled when nothing more is to be sent than what is there.
    closing: CancellationToken,
    /// Cancelled when no acknowledgement is awaited any more.
    aborted: CancellationToken,
}

/// An operation on the stream, from the claim to the end of the work.
#[derive(Debug)]
pub(crate) struct Hold {
    stream: Arc<ProgressStream>,
    number: u64,
    changed: Arc<Notify>,
}

impl ProgressStream {
    pub(crate) fn new(connection: Connection) -> Arc<Self> {
        Arc::new(Self {
            connection,
            outbox: Mutex::default(),
            wake: Notify::new(),
            is_running: AtomicBool::new(false),
            was_answered: AtomicBool::new(false),
            ended: Notify::new(),
            closing: CancellationToken::new(),
            aborted: CancellationToken::new(),
        })
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renew the lease of the operation from now on, and watch for its cancel.
    ///
    /// An earlier attempt of the operation is over: its work gets `StaleAttempt`.
    pub(crate) fn hold(self: &Arc<Self>, operation: &Operation, signals: Arc<Signals>) -> Hold {
        let held = Held::new(operation, signals);
        let changed = held.changed.clone();
        let number = self.outbox().hold(held);
        self.wake();
        Hold { stream: self.clone(), number, changed }
    }

    /// Send the last reports, and wait a bounded time for their acknowledgements.
    pub(crate) async fn close(&self) {
        if self.aborted.is_cancelled() {
            return;
        }
        let ended = self.ended.notified();
        tokio::pin!(ended);
        ended.as_mut().enable();
        self.outbox().close();
        self.closing.cancel();
        self.wake.notify_one();
        if self.is_running.load(Ordering::SeqCst) {
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await; // the leases run out
        }
        self.aborted.cancel();
    }

    /// End the stream at once, because its client is dropped.
    pub(crate) fn abort(&self) {
        self.closing.cancel();
        self.aborted.cancel();
    }

    fn wake(self: &Arc<Self>) {
        self.wake.notify_one();
        if !self.closing.is_cancelled() && !self.is_running.swap(true, Ordering::SeqCst) {
            let stream = self.clone();
            self.connection.replicas.io().spawn(async move { stream.run().await });
        }
    }

    /// Hold one stream after the other, until the client is closed.
    async fn run(self: Arc<Self>) {
        tokio::select! {
            () = self.exchanges() => {}
            () = self.aborted.cancelled() => {}
        }
        self.ended.notify_waiters();
    }

    async fn exchanges(self: &Arc<Self>) {
        let mut backoff = Backoff::new(MAX_PAUSE);
        let mut is_limited = false;
        while self.has_work().await {
            self.was_answered.store(false, Ordering::Relaxed);
            let begin = Instant::now();
            let error = self.exchange().await.err();
            let is_of = |kind| error.as_ref().is_some_and(|error| error.is(kind));
            is_limited = is_of(Kind::LimitReached) || (is_limited && is_vague(error.as_ref()));
            let is_steady = begin.elapsed() > STEADY_TIME;
            let was_answered = self.was_answered.load(Ordering::Relaxed);
            let is_idle = error.is_none() && !self.outbox().has_work();
            if is_steady || is_idle || (was_answered && !is_limited && is_away(error.as_ref())) {
                backoff.reset();
            }
            let pause = match &error {
                Some(error) => {
                    tracing::debug!(%error, "the progress stream has ended");
                    backoff.pause_after(error)
                }
                None => backoff.pause(),
            };
            let begin = Instant::now();
            let mut end = begin + pause;
            let due_time = self.outbox().begin_again(is_limited.then_some(end));
            if let Some(due_time) = due_time.filter(|_| is_limited) {
                end = end.min(due_time.max(begin + MIN_LIMITED_PAUSE));
            }
            tokio::select! {
                () = tokio::time::sleep_until(end) => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    /// Return true when operations are held, and false when the client is closed.
    async fn has_work(&self) -> bool {
        loop {
            let woken = self.wake.notified();
            if self.closing.is_cancelled() {
                return false;
            }
            if self.outbox().has_work() {
                return true;
            }
            tokio::select! {
                () = woken => {}
                () = self.closing.cancelled() => {}
            }
        }
    }

    /// Hold one stream, from the first report to its end; return the reason of the end.
    async fn exchange(self: &Arc<Self>) -> Result<()> {
        // The requests may outlive the exchange for a while, and must take nothing more then.
        let ending = CancellationToken::new();
        let _end = ending.clone().drop_guard();
        let start = (self.clone(), ending, Instant::now());
        let requests = stream::unfold(start, |(stream, ending, not_before)| async move {
            let request = stream.next_request(&ending, not_before).await?;
            Some((request, (stream, ending, Instant::now() + MESSAGE_PACE)))
        });
        let mut grpc = Grpc::new(self.connection.clone()).max_decoding_message_size(usize::MAX);
        let codec = ProtoCodec::<StreamProgressRequest, StreamProgressResponse>::default();
        let path = PathAndQuery::from_static(PATH);
        let answer = grpc.streaming(Request::new(requests), path, codec).await;
        let mut responses = answer.map_err(|status| rebuild(&status))?.into_inner();
        while let Some(received) = responses.message().await.map_err(|status| rebuild(&status))? {
            self.was_answered.store(true, Ordering::Relaxed);
            self.take(received.map_err(|_| undecodable())?);
        }
        Ok(())
    }

    /// Return the reports that are to be sent now, when there are some; None at the end.
    async fn next_request(
        &self,
        ending: &CancellationToken,
        not_before: Instant,
    ) -> Option<StreamProgressRequest> {
        tokio::select! {
            () = tokio::time::sleep_until(not_before) => {}
            () = ending.cancelled() => {}
            () = self.closing.cancelled() => {}
        }
        let mut idle_end = None;
        while !ending.is_cancelled() {
            let woken = self.wake.notified();
            let next = self.outbox().next(Instant::now());
            let until = match next {
                Next::Send(updates) => {
                    return Some(StreamProgressRequest { updates, ..Default::default() });
                }
                Next::Done => return None,
                Next::Wait(Some(until)) => {
                    idle_end = None;
                    until
                }
                Next::Wait(None) => *idle_end.get_or_insert(Instant::now() + IDLE_TIME),
            };
            if idle_end.is_some_and(|end| end <= Instant::now()) {
                return None;
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.closing.cancelled(), if !self.closing.is_cancelled() => {}
                () = ending.cancelled() => {}
            }
        }
        None
    }

    /// Pass the items of the service on to the operations that they are about.
    fn take(self: &Arc<Self>, response: StreamProgressResponse) {
        let refused = self.outbox().take(response);
        if let Some((number, pause)) = refused {
            let stream = self.clone();
            self.connection.replicas.io().spawn(async move {
                tokio::time::sleep(pause).await;
                stream.outbox().enqueue(number);
                stream.wake.notify_one();
            });
        }
        self.wake.notify_one(); // newer reports may have waited for the answer
    }
}

/// Return true if the stream ended because the service cannot be reached.
fn is_away(error: Option<&Error>) -> bool {
    error.is_some_and(|error| error.is(Kind::Unavailable) || error.is_disruption(false))
}

/// Return true if a write failed before the reason was known, which was the earlier one.
fn is_vague(error: Option<&Error>) -> bool {
    error.is_some_and(|error| error.is(Kind::Internal) && error.reason().is_empty())
}

impl Hold {
    /// Send the report as soon as possible; it replaces one that was not sent yet.
    ///
    /// # Errors
    ///
    /// That of an earlier report that was refused, or the reason why the work must stop.
    pub(crate) fn report(&self, report: PackedReport) -> Result<()> {
        self.stream.outbox().report(self.number, report)?;
        self.stream.wake.notify_one();
        Ok(())
    }

    /// Return when all reports so far are stored.
    pub(crate) async fn flush(&self) -> Result<()> {
        let Some(version) = self.read(Held::version) else {
            return Err(Error::WorkOver);
        };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.stream.outbox().is_stored(self.number, version)? {
                return Ok(());
            }
            changed.await;
        }
    }

    /// Return when the newest report is on the stream, or after a bounded time.
    ///
    /// A call that stores it afterwards is not undone by an earlier one that is on the stream.
    pub(crate) async fn send(&self) {
        let end = Instant::now() + SEND_TIMEOUT;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.change(Held::hurry) != Some(false) {
                return;
            }
            self.stream.wake.notify_one();
            if tokio::time::timeout_at(end, changed).await.is_err() {
                return;
            }
        }
    }

    /// Return the newest report if it may not be stored, and its version. From now on the stream
    /// only renews the lease: the work is ending.
    pub(crate) fn last_report(&self) -> Option<(PackedReport, u64)> {
        self.change(|held| {
            held.only_renew();
            held.unstored().map(|report| (report, held.version()))
        })?
    }

    pub(crate) fn has_unstored_checkpoint(&self) -> bool {
        self.read(Held::has_unstored_checkpoint).unwrap_or(false)
    }

    /// Return the newest report if it may not be stored.
    pub(crate) fn unstored(&self) -> Option<PackedReport> {
        self.read(Held::unstored)?
    }

    /// Note that a call has stored the report of the version.
    pub(crate) fn settle(&self, version: u64) {
        self.change(|held| held.settle(version));
    }

    /// Report nothing more, and let the lease run out.
    pub(crate) fn close(&self) {
        self.stream.outbox().drop_held(self.number);
        self.changed.notify_waiters();
        self.stream.wake.notify_one();
    }

    fn read<T>(&self, read: impl FnOnce(&Held) -> T) -> Option<T> {
        self.stream.outbox().get(self.number).map(|held| read(held))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> Option<T> {
        self.stream.outbox().get(self.number).map(change)
    }
}
