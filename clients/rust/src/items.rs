//! Sequences of items that arrive over several calls.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use tokio::time::Instant;

use crate::{
    backoff::{Backoff, MAX_PAUSE},
    error::{Kind, Result},
};

/// How long a page after the first one is asked for while the rate limit refuses it.
const MAX_LIMITED: Duration = Duration::from_secs(300);

type Source<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// A sequence of items, which ends after the first error.
///
/// It is a [`Stream`], and can be read without one of the crates for streams:
///
/// ```no_run
/// # async fn read(client: milepost::Client) -> Result<(), milepost::Error> {
/// let mut operations = client.list().items();
/// while let Some(operation) = operations.next().await {
///     println!("{}", operation?.id);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is read until `next` is called"]
pub struct Items<T>(Source<T>);

impl<T: Send + 'static> Items<T> {
    /// Return the next item; None at the end.
    pub async fn next(&mut self) -> Option<Result<T>> {
        std::future::poll_fn(|context| self.0.as_mut().poll_next(context)).await
    }

    pub(crate) fn new(source: impl Stream<Item = Result<T>> + Send + 'static) -> Self {
        Self(Box::pin(source))
    }

    /// Return the items of all pages. The function returns those of one, and the next token.
    ///
    /// A rate limit refuses the first page, because its rate is up to the user. The client asks
    /// for the other pages by itself, so a limit only delays them.
    pub(crate) fn of_pages<F, P>(fetch: F) -> Self
    where
        F: FnMut(String) -> P + Send + 'static,
        P: Future<Output = Result<(Vec<T>, String)>> + Send,
    {
        struct Place<T, F> {
            fetch: F,
            items: std::vec::IntoIter<T>,
            token: Option<String>,
        }
        let start = Place { fetch, items: Vec::new().into_iter(), token: Some(String::new()) };
        Self::new(stream::try_unfold(start, |mut place| async move {
            loop {
                if let Some(item) = place.items.next() {
                    return Ok(Some((item, place)));
                }
                let Some(token) = place.token.take() else {
                    return Ok(None);
                };
                let (items, next) = if token.is_empty() {
                    (place.fetch)(token).await?
                } else {
                    next_page(&mut place.fetch, &token).await?
                };
                place.items = items.into_iter();
                place.token = (!next.is_empty()).then_some(next);
            }
        }))
    }
}

/// Return the page of the token once the rate limit allows it.
async fn next_page<T, P>(
    fetch: &mut impl FnMut(String) -> P,
    token: &str,
) -> Result<(Vec<T>, String)>
where
    P: Future<Output = Result<(Vec<T>, String)>>,
{
    let end = Instant::now() + MAX_LIMITED;
    let mut backoff = Backoff::new(MAX_PAUSE);
    loop {
        let error = match fetch(token.to_owned()).await {
            Err(error) if error.is(Kind::RateLimited) => error,
            page_or_error => return page_or_error,
        };
        let pause = backoff.pause_after(&error);
        if Instant::now().checked_add(pause).is_none_or(|next| next > end) {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

impl<T> Stream for Items<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(context)
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Items")
    }
}
