//! The API key or the token of each call.

use std::{error::Error as StdError, fmt, future::Future, pin::Pin, sync::Arc};

use http::HeaderValue;
use tonic::Status;

/// Error of a token source.
pub type TokenError = Box<dyn StdError + Send + Sync>;

type Token = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// The source of the API key or the token (JWT) of every try of every call.
#[derive(Clone)]
pub(crate) struct Credential(Arc<dyn Fn() -> Token + Send + Sync>);

impl Credential {
    pub(crate) fn fixed(token: String) -> Self {
        Self(Arc::new(move || {
            let token = token.clone();
            Box::pin(async move { Ok(token) })
        }))
    }

    pub(crate) fn from_source<F, T>(source: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(source())))
    }

    /// Return the value of the header `authorization`.
    pub(crate) async fn header(&self) -> Result<HeaderValue, Status> {
        let token = (self.0)().await.map_err(|error| Status::unauthenticated(error.to_string()))?;
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
