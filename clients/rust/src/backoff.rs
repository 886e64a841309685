//! Pauses between tries.

use std::time::Duration;

use crate::error::Error;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Maximum of the pauses of one call, and between two streams.
pub(crate) const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Maximum of the pauses of ends and waits that go on by themselves.
pub(crate) const MAX_LONG_PAUSE: Duration = Duration::from_secs(5);

/// Pauses that grow from try to try.
///
/// Each is about twice the one before, up to a maximum, and shortened at random by up to a half, so
/// that clients do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    pub(crate) fn new(max: Duration) -> Self {
        Self { next: FIRST_PAUSE, max }
    }

    /// Begin again with the first pause: the last try was successful.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }

    /// Return the next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (2 * self.next).min(self.max);
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Return the next pause, with the one that the error asks for added.
    pub(crate) fn pause_after(&mut self, error: &Error) -> Duration {
        self.pause().saturating_add(error.retry_after().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pauses double up to the maximum, each shortened by at most a half.
    #[test]
    fn pauses_grow_to_the_maximum() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        for bound_ms in [50, 100, 200, 400, 800, 1000, 1000] {
            let bound = Duration::from_millis(bound_ms);
            let pause = backoff.pause();
            assert!(pause >= bound / 2 && pause <= bound, "{pause:?}, bound {bound:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= FIRST_PAUSE);
    }
}
