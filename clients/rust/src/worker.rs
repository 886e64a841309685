//! A worker: it claims operations of some functions, and runs the handler of each.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    backoff::{Backoff, MAX_PAUSE},
    client::Client,
    error::{Error, Kind, Result},
    execution::{Execution, Handle, STOP_PATIENCE},
    failure::Failure,
    handler::{Handler, erased},
    operation::Operation,
    payload::IntoPayload,
    work::Work,
};

/// The operations that a worker does at once.
pub const DEFAULT_CONCURRENCY: usize = 10;
/// The time after which another worker gets an operation of a dead worker.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(30);
/// How long handlers may go on after the worker was stopped.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(25);

/// The operations that one progress stream carries.
const MAX_CONCURRENCY: usize = 1_000;
const MAX_PER_CLAIM: usize = 100;
/// How long one claim waits for work.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the releases of a worker may take, beside the patience with its handlers.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// Claims operations of some functions, and calls a handler for each.
///
/// ```no_run
/// # async fn work(client: milepost::Client) -> Result<(), milepost::Error> {
/// use milepost::{Failure, Work, Worker};
/// use serde_json::{Value, json};
///
/// async fn transcode(work: Work) -> Result<Value, Failure> {
///     work.progress(0.5, "halfway")?;
///     Ok(json!({"frames": 1200}))
/// }
///
/// let worker = Worker::builder(&client)
///     .handle("video.transcode", transcode)
///     .concurrency(20)
///     .build()?;
/// worker.run(milepost::shutdown_signal()).await
/// # }
/// ```
///
/// A result completes the operation. An error, or a panic, ends the attempt, and the operation is
/// tried again, if it has an attempt left; see [`Failure`] for other ends. Leases are renewed, on a
/// thread of the client, while a handler runs, and until the service has accepted the end. A
/// handler should not block its thread all the same, because others share it: see
/// [`tokio::task::spawn_blocking`].
pub struct Worker {
    client: Client,
    handlers: BTreeMap<String, Handler>,
    concurrency: usize,
    name: Option<String>,
    lease: Duration,
    grace: Duration,
    is_running: AtomicBool,
    executions: Arc<Executions>,
}

/// The settings of a [`Worker`].
#[must_use = "a builder does nothing until `build` is called"]
pub struct WorkerBuilder {
    worker: Worker,
}

/// The executions of a worker that go on.
#[derive(Default)]
struct Executions {
    running: Mutex<HashMap<u64, Handle>>,
    /// Notified when one has ended.
    changed: Notify,
}

impl Executions {
    fn running(&self) -> MutexGuard<'_, HashMap<u64, Handle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> usize {
        self.running().len()
    }

    /// Return the executions, those first whose cancel is requested.
    fn handles(&self) -> Vec<Handle> {
        let mut handles: Vec<Handle> = self.running().values().cloned().collect();
        handles.sort_by_key(|handle| !handle.is_cancel_requested());
        handles
    }

    fn remove(&self, number: u64) {
        self.running().remove(&number);
        self.changed.notify_waiters();
    }

    /// Wait until fewer go on; return false after the timeout.
    async fn wait_for_fewer(&self, than: usize, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.count() < than {
                return true;
            }
            if tokio::time::timeout_at(end, changed).await.is_err() {
                return false;
            }
        }
    }
}

/// Removes an execution however it ends.
struct Place(Arc<Executions>, u64);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.remove(self.1);
    }
}

impl Worker {
    /// Return a builder of a worker.
    pub fn builder(client: &Client) -> WorkerBuilder {
        WorkerBuilder {
            worker: Self {
                client: client.clone(),
                handlers: BTreeMap::new(),
                concurrency: DEFAULT_CONCURRENCY,
                name: None,
                lease: DEFAULT_LEASE,
                grace: DEFAULT_GRACE,
                is_running: AtomicBool::new(false),
                executions: Arc::default(),
            },
        }
    }

    /// Work until the future `shutdown` ends, such as [`shutdown_signal`](crate::shutdown_signal),
    /// or that of a `CancellationToken`.
    ///
    /// Then the worker claims no more, and waits for the handlers within the grace. Handlers that
    /// go on are asked to stop, with the reason `WorkerStopped`, and what is left is released:
    /// another worker gets it at once, and it is no failed attempt. Releases are best effort;
    /// without one, another worker gets the operation when its lease runs out. If the client is
    /// closed, all operations are released at once, and so they are if this future is dropped.
    ///
    /// # Errors
    ///
    /// A refusal of claims for good: the API key is not valid, or is not granted one of the
    /// functions. [`Error::Closed`] if the client is closed.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) -> Result<()> {
        if self.is_running.swap(true, Ordering::SeqCst) {
            return Err(Error::Configuration("the worker runs already".to_owned()));
        }
        let _running = Running(self);
        let _counted = self.client.count_worker();
        let closing = self.client.closing().clone();
        let ended = tokio::select! {
            () = shutdown => Ok(()),
            () = closing.cancelled() => Err(Error::Closed),
            error = self.claim_forever() => Err(error),
        };
        let grace = if closing.is_cancelled() { Duration::ZERO } else { self.grace };
        tokio::select! {
            _ = self.executions.wait_for_fewer(1, grace) => {}
            () = closing.cancelled() => {}
        }
        self.leave().await;
        ended
    }

    /// Claim and start operations until claims are refused for good.
    async fn claim_forever(&self) -> Error {
        let functions: Vec<&String> = self.handlers.keys().collect();
        let mut backoff = Backoff::new(MAX_PAUSE);
        loop {
            self.executions.wait_for_fewer(self.concurrency, Duration::from_secs(3600)).await;
            let free = self.concurrency.saturating_sub(self.executions.count());
            if free == 0 {
                continue;
            }
            let count = i32::try_from(free.min(MAX_PER_CLAIM)).unwrap_or(1);
            let mut claim = self.client.claim(functions.iter().copied()).max_operations(count);
            if let Some(name) = &self.name {
                claim = claim.worker(name);
            }
            match claim.lease(self.lease).timeout(CLAIM_TIMEOUT).await {
                Ok(operations) => {
                    backoff.reset();
                    for operation in operations {
                        self.start(operation);
                    }
                }
                Err(error) if is_survived(&error) => {
                    tracing::warn!(%error, "no work was claimed");
                    tokio::time::sleep(backoff.pause_after(&error)).await;
                }
                Err(error) => return error,
            }
        }
    }

    fn start(&self, operation: Operation) {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let handler = self.handlers.get(&operation.function).cloned();
        let handler = handler.unwrap_or_else(|| erased(unknown_function));
        let execution = Execution::new(&self.client, operation);
        self.executions.running().insert(number, execution.handle());
        let place = Place(self.executions.clone(), number);
        tokio::spawn(async move {
            execution.run(&handler).await;
            drop(place);
        });
    }

    /// Ask the handlers to stop, and release their operations; those that go on, after a while.
    async fn leave(&self) {
        for handle in self.executions.handles() {
            handle.leave();
        }
        if self.executions.wait_for_fewer(1, STOP_PATIENCE).await {
            return;
        }
        for handle in self.executions.handles() {
            handle.end_now();
        }
        self.executions.wait_for_fewer(1, RELEASE_TIMEOUT).await;
    }
}

/// Ends the run of a worker, also of one whose future is dropped.
struct Running<'a>(&'a Worker);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        for handle in self.0.executions.handles() {
            handle.leave();
            handle.end_now();
        }
        self.0.is_running.store(false, Ordering::SeqCst);
    }
}

/// Return true if the worker claims again after the refusal.
fn is_survived(error: &Error) -> bool {
    error.is_temporary() || error.is(Kind::LimitReached) || error.is(Kind::UndecodableAnswer)
}

/// The handler of an operation that was not asked for.
async fn unknown_function(work: Work) -> std::result::Result<(), Failure> {
    Err(Failure::new(format!("this worker has no handler for {}", work.operation().function)))
}

impl WorkerBuilder {
    /// Set the handler of a function. It returns the result: `()`, JSON or a message.
    pub fn handle<H, F, R, E>(mut self, function: impl Into<String>, handler: H) -> Self
    where
        H: Fn(Work) -> F + Send + Sync + 'static,
        F: Future<Output = std::result::Result<R, E>> + Send + 'static,
        R: IntoPayload,
        E: Into<Failure>,
    {
        self.worker.handlers.insert(function.into(), erased(handler));
        self
    }

    /// Bound the operations at once: [`DEFAULT_CONCURRENCY`], at most 1,000.
    pub fn concurrency(mut self, count: usize) -> Self {
        self.worker.concurrency = count;
        self
    }

    /// Set the name of the worker, shown to people.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.worker.name = Some(name.into());
        self
    }

    /// Set the time after which another worker gets an operation of a dead worker:
    /// [`DEFAULT_LEASE`], from 5 s to 1 h. It is renewed when a third of it has passed.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.worker.lease = lease;
        self
    }

    /// Set how long handlers may go on after the worker was stopped: [`DEFAULT_GRACE`].
    pub fn grace(mut self, grace: Duration) -> Self {
        self.worker.grace = grace.min(Duration::from_secs(86_400));
        self
    }

    /// Return the worker.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if there is no handler, or the concurrency is out of range.
    pub fn build(self) -> Result<Worker> {
        let problem = match &self.worker {
            worker if worker.handlers.is_empty() => "a worker needs handlers",
            worker if !(1..=MAX_CONCURRENCY).contains(&worker.concurrency) => {
                "concurrency must lie between 1 and 1,000"
            }
            _ => return Ok(self.worker),
        };
        Err(Error::Configuration(problem.to_owned()))
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let functions = self.handlers.keys();
        formatter.write_str("Worker ")?;
        formatter.debug_set().entries(functions).finish()
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.worker.fmt(formatter)
    }
}
