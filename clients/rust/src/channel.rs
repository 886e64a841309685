//! The connections to all replicas behind one address.
//!
//! Each is opened when it is first needed, and again after it was lost. A call goes to a replica
//! that is connected. All connections live on a thread of their own: a handler that blocks the
//! runtime of the program neither delays the renewal of leases nor breaks them.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};
use tonic::{
    Status,
    transport::{Channel, ClientTlsConfig, Endpoint},
};

use crate::{
    address::Address,
    error::{Error, Result},
    socket::{Connector, Lost, Target},
};

/// The service admits a ping every 10 s during calls.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Reconnecting this soon finds a returning service at once.
const FIRST_RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const MAX_RECONNECT_PAUSE: Duration = Duration::from_secs(2);
/// Time after which the addresses of a name are looked up again: always, and after a loss.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
const MIN_RESOLVE_INTERVAL: Duration = Duration::from_secs(1);
/// A claim or a page has at most 3 MiB; many results of 1 MiB may be in flight.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// The runtime of the connections, with one thread.
pub(crate) struct Io(Option<tokio::runtime::Runtime>);

impl Io {
    pub(crate) fn start() -> Result<Self> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("milepost-io")
            .enable_all()
            .build()
            .map(|runtime| Self(Some(runtime)))
            .map_err(|error| Error::Configuration(format!("no thread for connections: {error}")))
    }

    /// Run the future on the thread of the connections.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(future);
        }
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background(); // works within another runtime too
        }
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Io")
    }
}

/// The connections to all replicas.
#[derive(Debug)]
pub(crate) struct Replicas {
    io: Io,
    address: Address,
    endpoint: Endpoint,
    state: Mutex<State>,
    /// Notified when a connection was opened, or could not be.
    changed: Notify,
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    replicas: Vec<Arc<Replica>>,
    resolve_time: Option<Instant>,
    is_resolving: bool,
    is_suspect: bool,
    is_closed: bool,
    problem: String,
}

/// One address of the service.
#[derive(Debug)]
pub(crate) struct Replica {
    target: Target,
    connection: Mutex<Connection>,
}

#[derive(Debug)]
enum Connection {
    /// No connection, and none is opened before the time.
    Absent {
        retry_time: Instant,
        pause: Duration,
    },
    Opening {
        pause: Duration,
    },
    Open {
        channel: Channel,
        number: usize,
    },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replica {
    fn new(target: Target) -> Arc<Self> {
        let absent =
            Connection::Absent { retry_time: Instant::now(), pause: FIRST_RECONNECT_PAUSE };
        Arc::new(Self { target, connection: Mutex::new(absent) })
    }

    fn channel(&self) -> Option<Channel> {
        match &*lock(&self.connection) {
            Connection::Open { channel, .. } => Some(channel.clone()),
            _ => None,
        }
    }

    fn is_opening(&self) -> bool {
        matches!(*lock(&self.connection), Connection::Opening { .. })
    }

    /// Note that the connection is to be opened now; return false if it is not the time.
    fn begin(&self) -> bool {
        let mut connection = lock(&self.connection);
        match *connection {
            Connection::Absent { retry_time, pause } if retry_time <= Instant::now() => {
                *connection = Connection::Opening { pause };
                true
            }
            _ => false,
        }
    }

    /// Note that the connection could not be opened: the next try follows after a growing pause.
    fn fail(&self) {
        let mut connection = lock(&self.connection);
        if let Connection::Opening { pause } = *connection {
            *connection = Connection::Absent {
                retry_time: Instant::now() + pause,
                pause: (2 * pause).min(MAX_RECONNECT_PAUSE),
            };
        }
    }

    fn open(&self, channel: Channel, number: usize) {
        *lock(&self.connection) = Connection::Open { channel, number };
    }

    /// Note that the connection of the number was lost; a later one stays.
    fn lose(&self, lost: usize) {
        let mut connection = lock(&self.connection);
        if matches!(*connection, Connection::Open { number, .. } if number == lost) {
            *connection =
                Connection::Absent { retry_time: Instant::now(), pause: FIRST_RECONNECT_PAUSE };
        }
    }
}

impl Replicas {
    pub(crate) fn new(address: Address, tls: Option<ClientTlsConfig>) -> Result<Self> {
        let mut state = State::default();
        if !address.is_name() {
            state.replicas.push(Replica::new(Target::Address(address.clone())));
        }
        Ok(Self {
            io: Io::start()?,
            endpoint: endpoint(&address, tls)?,
            address,
            state: Mutex::new(state),
            changed: Notify::new(),
            next: AtomicUsize::new(0),
        })
    }

    pub(crate) fn io(&self) -> &Io {
        &self.io
    }

    /// Drop all connections, and open no other one.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.is_closed = true;
        state.replicas.clear();
        "the client is closed".clone_into(&mut state.problem);
        drop(state);
        self.changed.notify_waiters();
    }

    /// Return the next connected replica; without one, wait until one is, or none can be.
    pub(crate) async fn pick(self: &Arc<Self>) -> std::result::Result<Channel, Status> {
        loop {
            self.wait_until_open().await?;
            if let Some(channel) = self.next_open() {
                return Ok(channel);
            }
        }
    }

    /// Return when a replica is connected, or the error if none can be.
    pub(crate) async fn wait_until_open(self: &Arc<Self>) -> std::result::Result<(), Status> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            self.resolve_when_due();
            let replicas = lock(&self.state).replicas.clone();
            for replica in &replicas {
                self.open_when_due(replica);
            }
            if replicas.iter().any(|replica| replica.channel().is_some()) {
                return Ok(());
            }
            let is_waiting = replicas.iter().any(|replica| replica.is_opening());
            if !is_waiting && !lock(&self.state).is_resolving {
                return Err(self.unreachable());
            }
            changed.await;
        }
    }

    /// Return the next replica that is connected, in turn.
    fn next_open(&self) -> Option<Channel> {
        let replicas = &lock(&self.state).replicas;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let count = replicas.len();
        (0..count).find_map(|step| replicas[first.wrapping_add(step) % count].channel())
    }

    /// Return the error of a service to which there is no connection.
    pub(crate) fn unreachable(&self) -> Status {
        let mut state = lock(&self.state);
        state.is_suspect = true;
        let problem = &state.problem;
        Status::unavailable(format!("{} cannot be reached: {problem}", self.address.authority()))
    }

    fn open_when_due(self: &Arc<Self>, replica: &Arc<Replica>) {
        if replica.begin() {
            let (replicas, replica) = (self.clone(), replica.clone());
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.io.spawn(async move { replicas.open(&replica, number).await });
        }
    }

    /// Open the connection of the replica.
    async fn open(self: Arc<Self>, replica: &Arc<Replica>, number: usize) {
        let weak = (Arc::downgrade(&self), Arc::downgrade(replica));
        let on_loss = move || lose(&weak.0, &weak.1, number);
        let connector = Connector::new(replica.target.clone(), on_loss);
        let opening = self.endpoint.connect_with_connector(connector);
        let problem = match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Ok(channel)) => {
                replica.open(channel, number);
                self.changed.notify_waiters();
                return;
            }
            Ok(Err(error)) => causes(&error),
            Err(_) => "no connection within 5 s".to_owned(),
        };
        tracing::debug!(target = ?replica.target, %problem, "no connection to the service");
        lock(&self.state).problem = problem;
        replica.fail();
        self.changed.notify_waiters();
    }

    fn resolve_when_due(self: &Arc<Self>) {
        let Address::Host { host, port } = &self.address else {
            return;
        };
        if !self.address.is_name() {
            return;
        }
        let mut state = lock(&self.state);
        let interval = if state.is_suspect { MIN_RESOLVE_INTERVAL } else { RESOLVE_INTERVAL };
        let is_due = state.resolve_time.is_none_or(|time| time.elapsed() >= interval);
        if state.is_resolving || state.is_closed || !is_due {
            return;
        }
        state.is_resolving = true;
        let (replicas, host, port) = (self.clone(), host.clone(), *port);
        self.io.spawn(async move {
            let found = tokio::net::lookup_host((host.as_str(), port)).await;
            replicas.take(found.map(Iterator::collect));
        });
    }

    /// Keep the connections to the addresses that were found, and let the others end.
    fn take(&self, found: io::Result<Vec<SocketAddr>>) {
        let mut state = lock(&self.state);
        state.is_resolving = false;
        state.is_suspect = false;
        state.resolve_time = Some(Instant::now());
        match found {
            _ if state.is_closed => {}
            Ok(found) if !found.is_empty() => {
                let known = std::mem::take(&mut state.replicas);
                state.replicas = with_addresses(&known, found);
            }
            Ok(_) => "the name has no address".clone_into(&mut state.problem),
            Err(error) => state.problem = error.to_string(), // the open connections still serve
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

/// Return the replicas of the addresses: those that are known, and new ones.
fn with_addresses(known: &[Arc<Replica>], mut found: Vec<SocketAddr>) -> Vec<Arc<Replica>> {
    found.sort_unstable();
    found.dedup();
    let of_address = |address| {
        let target = Target::Socket(address);
        let same = known.iter().find(|replica| replica.target == target);
        same.cloned().unwrap_or_else(|| Replica::new(target))
    };
    found.into_iter().map(of_address).collect()
}

/// Note that a connection was lost: the name may have other addresses now.
fn lose(replicas: &Weak<Replicas>, replica: &Weak<Replica>, number: usize) {
    if let Some(replica) = replica.upgrade() {
        replica.lose(number);
    }
    if let Some(replicas) = replicas.upgrade() {
        lock(&replicas.state).is_suspect = true;
    }
}

/// Return true if the connection of the call was lost before the call was sent.
pub(crate) fn was_not_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        if error.is::<Lost>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn endpoint(address: &Address, tls: Option<ClientTlsConfig>) -> Result<Endpoint> {
    let refused = |error: tonic::transport::Error| Error::Configuration(causes(&error));
    let scheme = if tls.is_some() { "https" } else { "http" };
    let uri = format!("{scheme}://{}", address.authority());
    let mut endpoint = Endpoint::from_shared(uri)
        .and_then(|endpoint| endpoint.user_agent(crate::USER_AGENT))
        .map_err(refused)?
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(false)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    if let Some(tls) = tls {
        endpoint = endpoint.tls_config(tls).map_err(refused)?;
    }
    Ok(endpoint)
}

/// Return the texts of the error and of its causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
