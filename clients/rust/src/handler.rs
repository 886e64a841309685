//! The function that does the work of an operation.

use std::{future::Future, pin::Pin, sync::Arc};

use prost_types::Any;

use crate::{error::ValueError, failure::Failure, payload::IntoPayload, work::Work};

/// What a handler has returned: the packed result, or the reason why it cannot be stored.
pub(crate) type Outcome = Result<Result<Option<Any>, ValueError>, Failure>;

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A handler, of whatever type.
pub(crate) type Handler = Arc<dyn Fn(Work) -> Running + Send + Sync>;

/// Return the handler, which packs its result itself: the code of the user does that.
pub(crate) fn erased<H, F, R, E>(handler: H) -> Handler
where
    H: Fn(Work) -> F + Send + Sync + 'static,
    F: Future<Output = Result<R, E>> + Send + 'static,
    R: IntoPayload,
    E: Into<Failure>,
{
    let handler = Arc::new(handler);
    Arc::new(move |work| {
        let handler = handler.clone();
        Box::pin(async move {
            match handler(work).await {
                Ok(result) => Ok(result.into_any()),
                Err(error) => Err(error.into()),
            }
        })
    })
}
