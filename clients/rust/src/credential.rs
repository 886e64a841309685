//! The API key or the token of each call.

use std::{
    error::Error as StdError, fmt, future::Future, panic::AssertUnwindSafe, pin::Pin, sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use http::HeaderValue;
use tonic::Status;

use crate::client::DEFAULT_DEADLINE;

/// Error of a token source.
pub type TokenError = Box<dyn StdError + Send + Sync>;

type Token = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// The source of the API key or the token (JWT) of every try of every call.
#[derive(Clone)]
pub(crate) struct Credential {
    source: Arc<dyn Fn() -> Token + Send + Sync>,
    timeout: Duration,
}

impl Credential {
    pub(crate) fn fixed(token: String) -> Self {
        Self::from_source(move || std::future::ready(Ok(token.clone())))
    }

    pub(crate) fn from_source<F, T>(source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        let source = Arc::new(move || -> Token { Box::pin(source()) });
        Self { source, timeout: DEFAULT_DEADLINE }
    }

    /// Give the source this time for an answer: a watch and the progress stream have no deadline.
    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Return the value of the header `authorization`.
    ///
    /// A source that fails, or panics, is as temporary as a service that cannot be reached. A panic
    /// would end the progress stream, and with it all leases.
    pub(crate) async fn header(&self) -> Result<HeaderValue, Status> {
        let asking = AssertUnwindSafe(async { (self.source)().await }).catch_unwind();
        let answer = match tokio::time::timeout(self.timeout, asking).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err("it panicked".into())),
            Err(_) => Err("no token in time".into()),
        };
        let token = answer
            .map_err(|error| Status::unavailable(format!("the token source failed: {error}")))?;
        header_of(&token).ok_or_else(|| Status::unauthenticated(BAD_KEY))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Credential")
    }
}

/// Does not show the key.
pub(crate) const BAD_KEY: &str =
    "an API key is one word of ASCII: this one is empty, or has a space or a line end";

/// Return the header of the token; None if it is not one word of ASCII.
pub(crate) fn header_of(token: &str) -> Option<HeaderValue> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A source that fails for a moment does not end a worker.
    #[tokio::test]
    async fn sources_fail_for_a_moment() {
        let failing = Credential::from_source(|| async { Err("the issuer is away".into()) });
        let panicking = Credential::from_source(|| async { panic!("in the source") });
        let hanging = Credential::from_source(std::future::pending);
        for source in [failing, panicking, hanging.within(Duration::from_millis(10))] {
            let status = source.header().await.expect_err("no token");
            assert_eq!(status.code(), tonic::Code::Unavailable, "{status}");
        }
        let malformed = Credential::fixed("two words".into()).header().await;
        assert_eq!(malformed.expect_err("no word").code(), tonic::Code::Unauthenticated);
    }

    /// A key is one word, and never shown.
    #[test]
    fn keys_are_words_and_never_shown() {
        for bad in ["", "mk_secret\n", "mk secret", "mk_ü"] {
            assert!(header_of(bad).is_none(), "{bad:?}");
        }
        let header = header_of("mk_secret").expect("a word");
        assert!(!format!("{header:?} {:?}", Credential::fixed("mk_secret".into())).contains("mk_"));
    }
}
