//! What the service asks of a handler.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// Tells a handler to stop, or that a cancel is requested.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    stop: CancellationToken,
    reason: OnceLock<Error>,
    cancel_requested: CancellationToken,
}

impl Signals {
    /// Tell the handler to stop; the first reason counts.
    pub(crate) fn stop(&self, reason: Error) {
        let _ = self.reason.set(reason); // later reasons follow from the first one
        self.stop.cancel();
    }

    pub(crate) fn stop_token(&self) -> &CancellationToken {
        &self.stop
    }

    pub(crate) fn reason(&self) -> Option<&Error> {
        self.reason.get()
    }

    /// Return true if the service has taken the operation away: there is nothing left to end.
    pub(crate) fn is_over(&self) -> bool {
        self.reason().is_some_and(Error::is_over)
    }

    pub(crate) fn request_cancel(&self) {
        self.cancel_requested.cancel();
    }

    pub(crate) fn cancel_requested(&self) -> &CancellationToken {
        &self.cancel_requested
    }
}
