//! The transport of all calls: it picks a replica, and adds the credential.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::header::AUTHORIZATION;
use tonic::{Status, body::Body};
use tower_service::Service;

use crate::{channel::Replicas, credential::Credential};

/// The connection to the service, for generated stubs.
///
/// It adds the credential, and nothing else: no deadline, no retries.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) credential: Option<Credential>,
}

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        #[cfg(feature = "opentelemetry")]
        crate::tracing_context::inject(request.headers_mut());
        let (replicas, credential) = (self.replicas.clone(), self.credential.clone());
        Box::pin(async move {
            if let Some(credential) = credential {
                request.headers_mut().insert(AUTHORIZATION, credential.header().await?);
            }
            let mut channel = replicas.pick().await?;
            std::future::poll_fn(|context| channel.poll_ready(context)).await?;
            channel.call(request).await.map_err(|error| Status::from_error(error.into()).into())
        })
    }
}
