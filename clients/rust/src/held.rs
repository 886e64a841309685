//! One operation on the progress stream: its newest report, and the lease that reports renew.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use prost_types::Any;
use tokio::{sync::Notify, time::Instant};

use crate::{
    backoff::{Backoff, MAX_PAUSE},
    error::Error,
    operation::Operation,
    proto::ProgressUpdate,
    signals::Signals,
};

/// The assumed lease of an operation without one, which is still watched for a cancel.
const DEFAULT_LEASE: Duration = Duration::from_secs(30);
/// Delay of the first report, which makes the service watch for a cancel: work that ends before
/// needs none.
const FIRST_REPORT_DELAY: Duration = Duration::from_millis(200);
/// Two renewals may be lost before the lease is.
const RENEWALS_PER_LEASE: u32 = 3;
/// The share of the time between two renewals by which one may come early, together with others.
const EARLY_SHARE: u32 = 10;
/// How long a newer report waits for the answer to the last one.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(2);

/// What a handler has reported.
#[derive(Debug, Clone, Default)]
pub(crate) struct PackedReport {
    pub(crate) progress: Option<f64>,
    pub(crate) message: Option<String>,
    pub(crate) checkpoint: Option<Any>,
}

/// A report that was sent: its version, and the time.
#[derive(Debug, Clone, Copy)]
struct Sent {
    version: u64,
    time: Instant,
}

/// An operation whose work is reported on the stream. Only the newest report is kept.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) id: String,
    pub(crate) attempt: i32,
    /// The revision at the start of the attempt; its interruptions have later ones.
    pub(crate) revision: i64,
    pub(crate) signals: Arc<Signals>,
    /// The pauses after temporary refusals of a report.
    pub(crate) backoff: Backoff,
    /// Time of the next renewal, if nothing is reported before.
    pub(crate) due_time: Instant,
    /// Time from which that may come together with others.
    pub(crate) early_time: Instant,
    /// Notified when a report was sent, stored or refused.
    pub(crate) changed: Arc<Notify>,
    /// The refusal of a report, which the next one returns.
    pub(crate) problem: Option<Error>,
    lease: Duration,
    renewal_time: Instant,
    report: PackedReport,
    version: u64,
    checkpoint_version: u64,
    sent_version: u64,
    stored_version: u64,
    /// The oldest report without an answer, and the newest.
    unanswered: VecDeque<Sent>,
    is_ending: bool,
    is_hurried: bool,
}

impl Held {
    pub(crate) fn new(operation: &Operation, signals: Arc<Signals>) -> Self {
        let now = Instant::now();
        let lease = lease_of(operation);
        let due_time = now + FIRST_REPORT_DELAY.min(lease / RENEWALS_PER_LEASE);
        Self {
            id: operation.id.clone(),
            attempt: operation.attempt,
            revision: operation.revision,
            signals,
            backoff: Backoff::new(MAX_PAUSE),
            due_time,
            early_time: due_time,
            changed: Arc::new(Notify::new()),
            problem: None,
            lease,
            renewal_time: now,
            report: PackedReport::default(),
            version: 0,
            checkpoint_version: 0,
            sent_version: 0,
            stored_version: 0,
            unanswered: VecDeque::new(),
            is_ending: false,
            is_hurried: false,
        }
    }

    fn interval(&self) -> Duration {
        self.lease / RENEWALS_PER_LEASE
    }

    /// Return the time at which the lease may run out: the smaller, the more urgent is a report.
    pub(crate) fn lease_end_time(&self) -> Instant {
        self.renewal_time + self.lease
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn is_stored(&self, version: u64) -> bool {
        self.stored_version >= version
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Return the time at which a report may follow the last one; None if that is now.
    ///
    /// Until then the answer to it is awaited: so an answer is that of one report, and says that this
    /// one is stored. The service commits one report a second, and would coalesce the others.
    pub(crate) fn ready_time(&self) -> Option<Instant> {
        if self.is_hurried && self.sent_version < self.version {
            return None;
        }
        let last = self.unanswered.back()?;
        Some((last.time + MAX_ANSWER_TIME).min(self.due_time))
    }

    /// Renew the lease at this time.
    pub(crate) fn expect_at(&mut self, time: Instant) {
        (self.due_time, self.early_time) = (time, time);
    }

    /// Make the report part of the newest one.
    pub(crate) fn merge(&mut self, report: PackedReport) {
        self.version += 1;
        if report.checkpoint.is_some() {
            self.checkpoint_version = self.version;
        }
        let last = std::mem::take(&mut self.report);
        self.report = PackedReport {
            progress: report.progress.or(last.progress),
            message: report.message.or(last.message),
            checkpoint: report.checkpoint.or(last.checkpoint),
        };
    }

    /// Return about the size of the newest report.
    pub(crate) fn size(&self) -> usize {
        let message = self.report.message.as_ref().map_or(0, String::len);
        let checkpoint = self.report.checkpoint.as_ref().map_or(0, |packed| packed.value.len());
        self.id.len() + message + checkpoint + 100
    }

    pub(crate) fn is_unstored(&self) -> bool {
        self.version > self.stored_version
    }

    /// Return true if a checkpoint may not be stored yet.
    pub(crate) fn has_unstored_checkpoint(&self) -> bool {
        self.checkpoint_version > self.stored_version
    }

    /// Return the newest report, or None if it is stored. It holds the checkpoint until that is.
    pub(crate) fn unstored(&self) -> Option<PackedReport> {
        let checkpoint = self.report.checkpoint.as_ref().filter(|_| self.has_unstored_checkpoint());
        self.is_unstored().then(|| PackedReport {
            progress: self.report.progress,
            message: self.report.message.clone(),
            checkpoint: checkpoint.cloned(),
        })
    }

    /// Return the newest report, or a mere renewal if that is stored; it is sent now.
    ///
    /// A bare update is a mere renewal in any case, which the service does not count as a write.
    pub(crate) fn take(&mut self, now: Instant, is_bare: bool) -> ProgressUpdate {
        let report = if is_bare || self.is_ending { None } else { self.unstored() };
        let version = if report.is_some() { self.version } else { self.stored_version };
        self.due_time = now + self.interval();
        self.early_time = self.due_time - self.interval() / EARLY_SHARE;
        self.unanswered.truncate(1);
        self.unanswered.push_back(Sent { version, time: now });
        self.sent_version = self.sent_version.max(version);
        self.changed.notify_waiters();
        let report = report.unwrap_or_default();
        ProgressUpdate {
            operation_id: self.id.clone(),
            attempt: Some(self.attempt),
            progress: report.progress,
            message: report.message,
            checkpoint: report.checkpoint,
        }
    }

    /// Note that the service has stored a report, and renewed the lease with it.
    ///
    /// Of the unanswered reports only the oldest one is certainly stored.
    pub(crate) fn acknowledge(&mut self) {
        if let Some(oldest) = self.unanswered.pop_front() {
            self.renewal_time = oldest.time;
            self.stored_version = self.stored_version.max(oldest.version);
        }
        self.backoff.reset();
        self.changed.notify_waiters();
    }

    /// Note that the stream has ended: what was sent on it is not acknowledged any more.
    pub(crate) fn lose_acknowledgements(&mut self) {
        if self.is_unanswered() {
            self.expect_at(self.due_time.min(self.renewal_time + self.interval()));
        }
        self.unanswered.clear();
    }

    /// Note that a report was answered by a refusal.
    pub(crate) fn lose_answer(&mut self) {
        self.unanswered.clear();
    }

    /// Note that a call has stored the report of the version.
    pub(crate) fn settle(&mut self, version: u64) {
        self.stored_version = self.stored_version.max(version);
        self.changed.notify_waiters();
    }

    /// Note that the report was refused for good: every renewal would be refused like it.
    pub(crate) fn refuse(&mut self, error: Error) {
        self.problem = Some(error);
        self.report = PackedReport::default();
        self.settle(self.version);
    }

    /// Send nothing but renewals: the work is ending.
    pub(crate) fn only_renew(&mut self) {
        self.is_ending = true;
        self.expect_at(self.due_time.max(self.renewal_time + self.interval()));
    }

    /// Send the newest report at once; return true if it was sent before.
    pub(crate) fn hurry(&mut self) -> bool {
        self.is_hurried = true;
        self.sent_version >= self.version
    }
}

/// Return the length of the lease, by the clock of the service alone.
fn lease_of(operation: &Operation) -> Duration {
    let times = operation.start_time.zip(operation.lease_expire_time);
    times
        .and_then(|(start, end)| end.duration_since(start).ok())
        .filter(|lease| !lease.is_zero())
        .unwrap_or(DEFAULT_LEASE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto;

    fn held() -> Held {
        let start_time = Some(prost_types::Timestamp { seconds: 1000, nanos: 0 });
        let lease_expire_time = Some(prost_types::Timestamp { seconds: 1030, nanos: 0 });
        let message =
            proto::Operation { start_time, lease_expire_time, attempt: 1, ..Default::default() };
        Held::new(&Operation::from_message(message), Arc::new(Signals::default()))
    }

    fn progress(share: f64) -> PackedReport {
        PackedReport { progress: Some(share), ..PackedReport::default() }
    }

    /// The lease is renewed when a third of it has passed, and earlier reports postpone that.
    #[test]
    fn leases_are_renewed_after_a_third() {
        let mut held = held();
        let now = Instant::now();
        assert!(held.due_time <= now + FIRST_REPORT_DELAY);
        let update = held.take(now, false);
        assert_eq!((update.progress, update.attempt), (None, Some(1)));
        assert_eq!(held.due_time, now + Duration::from_secs(10));
    }

    /// Only the oldest unanswered report is certainly stored by an acknowledgement.
    #[test]
    fn an_acknowledgement_stores_the_oldest_report() {
        let mut held = held();
        let now = Instant::now();
        held.merge(progress(0.1));
        held.take(now, false);
        held.merge(progress(0.2));
        assert_eq!(held.ready_time(), Some(now + MAX_ANSWER_TIME));
        held.take(now + MAX_ANSWER_TIME, false);
        held.merge(progress(0.3));
        held.take(now + 2 * MAX_ANSWER_TIME, false);
        held.acknowledge();
        assert!(held.is_stored(1) && !held.is_stored(2));
        held.acknowledge();
        assert!(held.is_stored(3) && !held.is_unstored());
    }

    /// A checkpoint travels with every report until one that has it is stored.
    #[test]
    fn checkpoints_travel_until_they_are_stored() {
        let mut held = held();
        let now = Instant::now();
        held.merge(PackedReport { checkpoint: Some(Any::default()), ..PackedReport::default() });
        held.merge(progress(0.5));
        assert!(held.has_unstored_checkpoint());
        assert!(held.take(now, true).checkpoint.is_none());
        held.acknowledge();
        assert!(held.has_unstored_checkpoint() && held.is_unstored());
        assert!(held.take(now, false).checkpoint.is_some());
        held.acknowledge();
        held.merge(progress(0.6));
        let update = held.take(now, false);
        assert_eq!((update.checkpoint, update.progress), (None, Some(0.6)));
    }

    /// Work that ends is only renewed, and a hurried report does not wait for an answer.
    #[test]
    fn ending_work_is_only_renewed() {
        let mut held = held();
        let now = Instant::now();
        held.take(now, false);
        held.merge(progress(0.5));
        assert_eq!(held.ready_time(), Some(now + MAX_ANSWER_TIME));
        assert!(!held.hurry() && held.ready_time().is_none());
        assert_eq!(held.take(now, false).progress, Some(0.5));
        assert!(held.hurry());
        held.only_renew();
        assert_eq!(held.take(now, false).progress, None);
    }
}
