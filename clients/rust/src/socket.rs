//! The socket below one connection.

use std::{
    fmt,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tower_service::Service;

use crate::address::Address;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The address as it was given; of `localhost`, the first one that answers.
    Address(Address),
    /// One address of a name.
    Socket(SocketAddr),
}

/// A stream of bytes.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

type Socket = TokioIo<Box<dyn Bytes>>;

/// Opens one socket, and no other when that is lost: the replicas open another connection.
pub(crate) struct Connector {
    target: Option<Target>,
    on_loss: Arc<dyn Fn() + Send + Sync>,
}

/// The connection was lost before a call was sent.
#[derive(Debug)]
pub(crate) struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the connection was lost")
    }
}

impl std::error::Error for Lost {}

impl Connector {
    pub(crate) fn new(target: Target, on_loss: impl Fn() + Send + Sync + 'static) -> Self {
        Self { target: Some(target), on_loss: Arc::new(on_loss) }
    }
}

impl Service<Uri> for Connector {
    type Response = Socket;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Socket, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let target = self.target.take();
        if target.is_none() {
            (self.on_loss)();
        }
        Box::pin(async move { Ok(TokioIo::new(connect(target.ok_or(Lost)?).await?)) })
    }
}

async fn connect(target: Target) -> io::Result<Box<dyn Bytes>> {
    let stream = match target {
        Target::Address(Address::Unix(path)) => return connect_unix(&path).await,
        Target::Address(Address::Host { host, port }) => {
            TcpStream::connect((host.as_str(), port)).await?
        }
        Target::Socket(address) => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

#[cfg(unix)]
async fn connect_unix(path: &std::path::Path) -> io::Result<Box<dyn Bytes>> {
    Ok(Box::new(tokio::net::UnixStream::connect(path).await?))
}

#[cfg(not(unix))]
async fn connect_unix(_path: &std::path::Path) -> io::Result<Box<dyn Bytes>> {
    Err(io::ErrorKind::Unsupported.into())
}
