//! The client, and how it is built.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::{
    address::Address,
    channel::Replicas,
    connection::Connection,
    credential::{BAD_KEY, Credential, TokenError, header_of},
    error::{Error, Result},
    progress_stream::ProgressStream,
};

/// The deadline of one call, with all its tries.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

/// How long `close` waits for the workers.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(6);
/// Maximum of the releases at once.
const MAX_RELEASES: usize = 100;
/// Longer deadlines are cut: a time so far away cannot be computed with.
const MAX_DEADLINE: Duration = Duration::from_secs(366 * 86_400);

/// A connection to a Milepost service. A program needs one; it reconnects by itself.
///
/// Clones share the connection. Calls are futures: dropping one ends it.
#[derive(Clone)]
pub struct Client {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    address: String,
    connection: Connection,
    deadline: Duration,
    progress: Arc<ProgressStream>,
    /// Places for releases, so that the end of a large worker does not overload the service.
    releases: Semaphore,
    /// The workers that run.
    workers: watch::Sender<usize>,
    /// Cancelled when workers are to release their operations.
    closing: CancellationToken,
    /// Cancelled when every call is to end.
    closed: CancellationToken,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.progress.abort();
    }
}

/// One of the workers that run.
pub(crate) struct Counted(watch::Sender<usize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Client {
    /// Return a builder of a client of the service at the address, such as `127.0.0.1:7450` or
    /// `dns:///milepost:7450`.
    ///
    /// ```no_run
    /// # fn connect(key: String) -> Result<(), milepost::Error> {
    /// let client = milepost::Client::builder("127.0.0.1:7450").api_key(key).build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(address: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            address: address.into(),
            credential: None,
            tls: None,
            is_insecure: false,
            deadline: DEFAULT_DEADLINE,
            problem: None,
        }
    }

    /// Return the connection, for calls of the generated stubs, such as those of an admin.
    #[must_use]
    pub fn connection(&self) -> Connection {
        self.inner.connection.clone()
    }

    /// End the workers of the client, which release their operations, send the last reports of
    /// progress, and close the connection. Calls in flight, and those that follow, return
    /// [`Error::Closed`].
    pub async fn close(&self) {
        self.inner.closing.cancel();
        let mut workers = self.inner.workers.subscribe();
        let ended = workers.wait_for(|count| *count == 0);
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await; // a worker may not be polled
        self.inner.progress.close().await;
        self.inner.closed.cancel();
        self.inner.connection.replicas.close();
    }

    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    pub(crate) fn progress(&self) -> &Arc<ProgressStream> {
        &self.inner.progress
    }

    pub(crate) fn releases(&self) -> &Semaphore {
        &self.inner.releases
    }

    /// Count a worker among those that run, until the value is dropped.
    pub(crate) fn count_worker(&self) -> Counted {
        self.inner.workers.send_modify(|count| *count += 1);
        Counted(self.inner.workers.clone())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.inner.closed.is_cancelled()
    }

    /// Return the answer of the call, or [`Error::Closed`] as soon as the client is closed.
    pub(crate) async fn until_closed<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            answer = call => answer,
            () = self.inner.closed.cancelled() => Err(Error::Closed),
        }
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.inner.deadline
    }
}

/// Shows the address, and never the credential.
impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Client({:?})", self.inner.address)
    }
}

/// The settings of a [`Client`].
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Debug)]
pub struct ClientBuilder {
    address: String,
    credential: Option<Credential>,
    tls: Option<Tls>,
    is_insecure: bool,
    deadline: Duration,
    problem: Option<&'static str>,
}

/// The trust of encrypted connections. By default, the roots of the system.
#[derive(Clone, Default)]
#[must_use]
pub struct Tls {
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
    server_name: Option<String>,
}

impl Tls {
    /// Return the default: the roots of the system, and no certificate of the client.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trust only the authorities of this PEM, instead of those of the system.
    pub fn authorities(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.authorities.push(Certificate::from_pem(pem));
        self
    }

    /// Show this certificate of the client, a PEM with its chain, and its key.
    pub fn identity(mut self, certificate: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Self {
        self.identity = Some(Identity::from_pem(certificate, key));
        self
    }

    /// Set the name in the certificate of the service, if it differs from the address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    fn config(self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if self.authorities.is_empty() {
            config = config.with_native_roots();
        }
        config = config.ca_certificates(self.authorities);
        if let Some(identity) = self.identity {
            config = config.identity(identity);
        }
        if let Some(name) = self.server_name {
            config = config.domain_name(name);
        }
        config
    }
}

/// Shows no key.
impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Tls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Send an API key, or a token (JWT), with every call. It is never shown.
    pub fn api_key(mut self, key: impl Into<String>) -> Self {
        let key = key.into();
        if header_of(&key).is_none() {
            self.problem = Some(BAD_KEY);
        }
        self.credential = Some(Credential::fixed(key));
        self
    }

    /// Send the token that the source returns with every try of every call, so that it can be
    /// renewed. The source should keep a token for as long as it is valid. Its error is as temporary as
    /// a service that cannot be reached: the call is tried again within its deadline, and a worker
    /// goes on.
    pub fn token_source<F, T>(mut self, source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = std::result::Result<String, TokenError>> + Send + 'static,
    {
        self.credential = Some(Credential::from_source(source));
        self
    }

    /// Encrypt with an authority or a certificate of your own. Without it, the client uses TLS with
    /// the roots of the system, and no encryption to the loopback interface.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Allow an unencrypted connection to another machine, which exposes the API key.
    pub fn insecure(mut self) -> Self {
        self.is_insecure = true;
        self
    }

    /// Bound each call, with all its tries, by this instead of [`DEFAULT_DEADLINE`].
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Return the client. It connects with the first call.
    ///
    /// # Errors
    ///
    /// [`Error::Configuration`] if a setting is malformed or contradicts another one.
    pub fn build(self) -> Result<Client> {
        let problem = match () {
            () if self.problem.is_some() => self.problem,
            () if self.tls.is_some() && self.is_insecure => {
                Some("tls and insecure exclude each other")
            }
            () if self.deadline.is_zero() => Some("the deadline of a call is zero"),
            () => None,
        };
        if let Some(problem) = problem {
            return Err(Error::Configuration(problem.to_owned()));
        }
        let address = Address::parse(&self.address)?;
        let is_plain = self.is_insecure || (self.tls.is_none() && address.is_loopback());
        let tls = (!is_plain).then(|| self.tls.unwrap_or_default().config());
        let replicas = Arc::new(Replicas::new(address, tls)?);
        let deadline = self.deadline.min(MAX_DEADLINE);
        let credential = self.credential.map(|credential| credential.within(deadline));
        let connection = Connection { replicas, credential };
        Ok(Client {
            inner: Arc::new(Inner {
                address: self.address,
                progress: ProgressStream::new(connection.clone()),
                connection,
                deadline,
                releases: Semaphore::new(MAX_RELEASES),
                workers: watch::Sender::new(0),
                closing: CancellationToken::new(),
                closed: CancellationToken::new(),
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settings are checked, and no text shows the key.
    #[test]
    fn settings_are_checked() {
        let builder = || Client::builder("127.0.0.1:1");
        for (refused, what) in [
            (builder().api_key("mk_secret\n").build(), "a line end"),
            (builder().deadline(Duration::ZERO).build(), "no deadline"),
            (builder().tls(Tls::new()).insecure().build(), "a contradiction"),
            (Client::builder("a b").build(), "no address"),
        ] {
            let error = refused.expect_err(what);
            assert!(!error.to_string().contains("mk_"), "{error}");
        }
        let builder = builder().api_key("mk_secret");
        let shown = format!("{builder:?}");
        let client = builder.build().expect("a client");
        assert!(!format!("{shown} {client:?} {:?}", client.connection()).contains("mk_"));
    }
}
