//! The repetition of a request until the service accepts it, or refuses it for good.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

use crate::{
    backoff::{Backoff, MAX_LONG_PAUSE},
    error::{Error, Result},
};

/// Maximum of tries that may meet a defect of the service, which is unlikely to pass.
const MAX_DEFECTS: u32 = 5;
/// How long unexplained refusals in a row count as temporary.
const UNEXPLAINED_TIMEOUT: Duration = Duration::from_secs(300);
/// Size above which a limit without a reason is that of the size of a message.
const LARGE_BYTES: usize = 1 << 20;

/// Send a request again after every temporary refusal, and return the answer or the final one.
///
/// The request has the same request id every time. The size is that of its content.
pub(crate) async fn until_final<T, F>(size: usize, mut send: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut backoff = Backoff::new(MAX_LONG_PAUSE);
    let mut defects = 0;
    let mut unexplained_end = None;
    loop {
        let error = match send().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        defects += u32::from(error.is_defect());
        let pause = backoff.pause_after(&error);
        unexplained_end = unexplained_limit(&error, unexplained_end);
        let is_late = unexplained_end.is_some_and(|end| Instant::now() + pause > end);
        let is_too_large = size > LARGE_BYTES && error.is_vague_limit();
        if !error.is_temporary() || defects > MAX_DEFECTS || is_late || is_too_large {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Return the time at which unexplained refusals become final; None after an explained one.
fn unexplained_limit(error: &Error, present: Option<Instant>) -> Option<Instant> {
    error.is_unexplained().then(|| present.unwrap_or_else(|| Instant::now() + UNEXPLAINED_TIMEOUT))
}
