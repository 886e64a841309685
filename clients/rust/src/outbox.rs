//! What is to be sent on the progress stream, and the answers to it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;
use tonic::Code;

use crate::{
    error::{ApiError, Error, Kind, Result},
    held::{Held, PackedReport},
    proto::{
        Acknowledgement, Interruption, InterruptionKind, ProgressUpdate, StreamProgressResponse,
        UpdateError, stream_progress_response::Item,
    },
    refusal::typed,
};

/// Maximum of the updates in one request, and of their size: gRPC takes requests of 2 MiB.
const MAX_UPDATES: usize = 1_000;
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// The held operations, by numbers that are never used again.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    held: HashMap<u64, Held>,
    /// The number of the present attempt of each operation.
    numbers: HashMap<String, u64>,
    unsent: HashSet<u64>,
    last_number: u64,
    /// Time of the next renewal; None if all are to be looked at.
    next_due_time: Option<Instant>,
    /// Time until which only leases are renewed, after a rate limit.
    quiet_end: Option<Instant>,
    is_closing: bool,
}

/// The next step of the stream.
#[derive(Debug)]
pub(crate) enum Next {
    Send(Vec<ProgressUpdate>),
    /// Wait for a report, or until this time; None without operations.
    Wait(Option<Instant>),
    Done,
}

impl Outbox {
    pub(crate) fn hold(&mut self, held: Held) -> u64 {
        if let Some(earlier) = self.numbers.get(&held.id).copied() {
            self.refuse(earlier, stale_attempt(&held.id));
        }
        self.last_number += 1;
        self.expect(held.due_time);
        self.numbers.insert(held.id.clone(), self.last_number);
        self.held.insert(self.last_number, held);
        self.last_number
    }

    pub(crate) fn get(&mut self, number: u64) -> Option<&mut Held> {
        self.held.get_mut(&number)
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.numbers.is_empty()
    }

    pub(crate) fn close(&mut self) {
        self.is_closing = true;
    }

    pub(crate) fn report(&mut self, number: u64, report: PackedReport) -> Result<()> {
        let held = self.held.get_mut(&number).ok_or(Error::WorkOver)?;
        if let Some(reason) = held.signals.reason().filter(|reason| reason.is_over()) {
            return Err(reason.clone());
        }
        if let Some(problem) = held.problem.take() {
            return Err(problem);
        }
        held.merge(report);
        self.enqueue(number);
        Ok(())
    }

    /// Return true if the report of the version is stored; the error of one that was refused.
    pub(crate) fn is_stored(&mut self, number: u64, version: u64) -> Result<bool> {
        let held = self.held.get(&number).ok_or(Error::WorkOver)?;
        if let Some(reason) = held.signals.reason().filter(|reason| reason.is_over()) {
            return Err(reason.clone());
        }
        match &held.problem {
            Some(problem) => Err(problem.clone()),
            None => Ok(held.is_stored(version)),
        }
    }

    /// Send the newest report of the operation soon, if it is still on the stream.
    pub(crate) fn enqueue(&mut self, number: u64) {
        if self.is_present(number) {
            self.unsent.insert(number);
        }
    }

    fn is_present(&self, number: u64) -> bool {
        self.held.get(&number).is_some_and(|held| self.numbers.get(&held.id) == Some(&number))
    }

    /// Send nothing more about the operation, and know nothing of it.
    pub(crate) fn drop_held(&mut self, number: u64) {
        self.leave(number);
        self.held.remove(&number);
    }

    /// Send nothing more about the operation.
    fn leave(&mut self, number: u64) {
        if self.is_present(number) {
            self.numbers.remove(&self.held[&number].id);
        }
        self.unsent.remove(&number);
    }

    /// Send again what the last stream may have lost, or everything but after a limit.
    pub(crate) fn begin_again(&mut self, quiet_end: Option<Instant>) {
        self.quiet_end = quiet_end;
        for number in self.numbers.values() {
            let Some(held) = self.held.get_mut(number) else {
                continue;
            };
            if quiet_end.is_none() || held.is_unanswered() {
                self.unsent.insert(*number);
                held.lose_acknowledgements();
            }
        }
        self.next_due_time = None; // time has passed without a look at the leases
    }

    fn expect(&mut self, time: Instant) {
        self.next_due_time = self.next_due_time.map(|due| due.min(time));
    }

    /// Return what is to be sent now, the operation first whose lease runs out first.
    pub(crate) fn next(&mut self, now: Instant) -> Next {
        let is_quiet = !self.is_closing && self.quiet_end.is_some_and(|end| now < end);
        if self.next_due_time.is_none_or(|due| due <= now) {
            self.enqueue_due(now);
        }
        let updates = self.urgent(now, is_quiet);
        if !updates.is_empty() {
            return Next::Send(updates);
        }
        if self.is_closing && self.unsent.is_empty() {
            return Next::Done;
        }
        if !self.has_work() {
            return Next::Wait(None);
        }
        Next::Wait(self.next_due_time.into_iter().chain(self.quiet_end.filter(|_| is_quiet)).min())
    }

    /// Enqueue the operations whose leases are to be renewed.
    fn enqueue_due(&mut self, now: Instant) {
        let mut next = now + Duration::from_secs(3600);
        for number in self.numbers.values() {
            let Some(held) = self.held.get(number) else {
                continue;
            };
            if held.due_time <= now {
                self.unsent.insert(*number);
            } else {
                next = next.min(held.due_time);
            }
        }
        self.next_due_time = Some(next);
    }

    /// Take the reports that are ready, up to the size of one request.
    fn urgent(&mut self, now: Instant, is_quiet: bool) -> Vec<ProgressUpdate> {
        let mut waiting = Vec::new();
        let mut next_ready = None;
        for number in &self.unsent {
            let Some(held) = self.held.get(number) else {
                continue;
            };
            let is_due = held.due_time <= now;
            if is_due || self.is_closing || (!is_quiet && held.is_ready(now)) {
                waiting.push((held.lease_end_time(), *number));
            } else if !is_quiet {
                next_ready = next_ready.into_iter().chain(held.ready_time()).min();
            }
        }
        if let Some(time) = next_ready {
            self.expect(time);
        }
        waiting.sort_unstable();
        self.take_reports(now, is_quiet, waiting.into_iter().map(|(_, number)| number))
    }

    fn take_reports(
        &mut self,
        now: Instant,
        is_bare: bool,
        numbers: impl Iterator<Item = u64>,
    ) -> Vec<ProgressUpdate> {
        let mut updates = Vec::new();
        let mut size = 0;
        for number in numbers {
            if updates.len() >= MAX_UPDATES || size > MAX_REQUEST_BYTES {
                break;
            }
            let Some(held) = self.held.get_mut(&number) else {
                continue;
            };
            let update = held.take(now, is_bare);
            let due_time = held.due_time;
            size += prost::Message::encoded_len(&update);
            updates.push(update);
            // A bare renewal leaves the report behind, for the time after the limit.
            if !(is_bare && self.held[&number].is_unstored()) {
                self.unsent.remove(&number);
            }
            self.expect(due_time);
        }
        updates
    }

    /// Pass the items on; return the operation and the pause after which its report is sent again.
    pub(crate) fn take(&mut self, response: StreamProgressResponse) -> Option<(u64, Duration)> {
        for item in &response.acknowledgements {
            self.acknowledge(item);
        }
        match response.item? {
            Item::Acknowledgement(item) => self.acknowledge(&item),
            Item::Interruption(item) => self.interrupt(&item),
            Item::Error(item) => return self.take_error(item),
        }
        None
    }

    fn present(&mut self, id: &str) -> Option<(u64, &mut Held)> {
        let number = *self.numbers.get(id)?;
        Some((number, self.held.get_mut(&number)?))
    }

    fn acknowledge(&mut self, item: &Acknowledgement) {
        let Some((number, held)) = self.present(&item.operation_id) else {
            return;
        };
        if item.attempt != 0 && item.attempt != held.attempt {
            return;
        }
        held.acknowledge();
        // One acknowledgement may answer several reports: then the last is sent again.
        if held.is_unstored() {
            self.unsent.insert(number);
        }
    }

    /// Ignore what is certainly about an earlier attempt.
    fn interrupt(&mut self, item: &Interruption) {
        let Some((number, held)) = self.present(&item.operation_id) else {
            return;
        };
        if item.revision <= held.revision {
            return;
        }
        match item.kind() {
            InterruptionKind::CancelRequested => {
                held.signals.request_cancel();
                held.due_time = Instant::now();
                self.unsent.insert(number); // a sign of life records that it was delivered
            }
            InterruptionKind::Cancelled => self.refuse(number, cancelled(&item.operation_id)),
            InterruptionKind::Expired => self.refuse(number, expired(&item.operation_id)),
            InterruptionKind::LeaseLost => self.refuse(number, stale_attempt(&item.operation_id)),
            InterruptionKind::Unspecified => {} // of a newer service; reports will be refused
        }
    }

    fn take_error(&mut self, item: UpdateError) -> Option<(u64, Duration)> {
        let (number, held) = self.present(&item.operation_id)?;
        let expected = item.metadata.get("expected");
        let is_of_another = expected.is_some_and(|attempt| *attempt != held.attempt.to_string());
        if item.reason == "STALE_ATTEMPT" && is_of_another {
            return None;
        }
        let mut facts = ApiError::without_reason(Code::Unknown, item.message);
        facts.reason = item.reason;
        facts.metadata = item.metadata;
        let error = typed(facts);
        held.lose_answer();
        if error.is_temporary() || error.is(Kind::StreamFull) {
            let pause = held.backoff.pause_after(&error);
            return Some((number, pause));
        }
        self.refuse(number, error);
        None
    }

    /// Note that a report was refused for good.
    fn refuse(&mut self, number: u64, error: Error) {
        let Some(held) = self.held.get_mut(&number) else {
            return;
        };
        if error.is_over() {
            held.signals.stop(error);
            held.changed.notify_waiters();
            self.leave(number);
        } else {
            held.refuse(error);
        }
    }
}

/// Return the error that a later report of the same work would be refused with.
fn over(code: Code, reason: &str, message: String, facts: &[(&str, &str)]) -> Error {
    let mut error = ApiError::without_reason(code, message);
    reason.clone_into(&mut error.reason);
    error.metadata =
        facts.iter().map(|(name, fact)| ((*name).to_owned(), (*fact).to_owned())).collect();
    typed(error)
}

fn cancelled(id: &str) -> Error {
    let facts = [("operation_id", id), ("transition", "progress"), ("status", "CANCELLED")];
    let message = format!("operation {id} was cancelled");
    over(Code::FailedPrecondition, "ILLEGAL_TRANSITION", message, &facts)
}

fn expired(id: &str) -> Error {
    let message = format!("operation {id} has expired");
    over(Code::NotFound, "OPERATION_EXPIRED", message, &[("operation_id", id)])
}

fn stale_attempt(id: &str) -> Error {
    let message = format!("operation {id} is no longer held by this worker");
    over(Code::Aborted, "STALE_ATTEMPT", message, &[("operation_id", id)])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{operation::Operation, proto, signals::Signals};

    fn hold(outbox: &mut Outbox, id: &str, lease_s: i64) -> (u64, Arc<Signals>) {
        let time = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        let operation = Operation::from_message(proto::Operation {
            id: id.to_owned(),
            attempt: 2,
            revision: 5,
            start_time: time(1000),
            lease_expire_time: time(1000 + lease_s),
            ..Default::default()
        });
        let signals = Arc::new(Signals::default());
        (outbox.hold(Held::new(&operation, signals.clone())), signals)
    }

    fn sent(outbox: &mut Outbox, now: Instant) -> Vec<ProgressUpdate> {
        match outbox.next(now) {
            Next::Send(updates) => updates,
            _ => Vec::new(),
        }
    }

    fn ids(updates: &[ProgressUpdate]) -> Vec<&str> {
        updates.iter().map(|update| update.operation_id.as_str()).collect()
    }

    fn response(item: Item) -> StreamProgressResponse {
        StreamProgressResponse { item: Some(item), ..Default::default() }
    }

    fn acknowledgement(id: &str, attempt: i32) -> Acknowledgement {
        Acknowledgement { operation_id: id.to_owned(), attempt, ..Default::default() }
    }

    fn interruption(kind: InterruptionKind, revision: i64) -> StreamProgressResponse {
        let operation_id = "a".to_owned();
        response(Item::Interruption(Interruption { operation_id, kind: kind.into(), revision }))
    }

    fn error(reason: &str, metadata: &[(&str, &str)]) -> StreamProgressResponse {
        let fact = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        response(Item::Error(UpdateError {
            operation_id: "a".to_owned(),
            reason: reason.to_owned(),
            metadata: metadata.iter().map(fact).collect(),
            ..Default::default()
        }))
    }

    const fn later(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// The operation whose lease runs out first is reported first, and renewed after a third of it.
    #[test]
    fn the_most_urgent_lease_is_renewed_first() {
        let mut outbox = Outbox::default();
        for (id, lease_s) in [("slow", 3600), ("fast", 3), ("middle", 60)] {
            hold(&mut outbox, id, lease_s);
        }
        let now = Instant::now();
        assert!(sent(&mut outbox, now).is_empty(), "the first report waits");
        assert_eq!(ids(&sent(&mut outbox, now + later(300))), ["fast", "middle", "slow"]);
        outbox.take(response(Item::Acknowledgement(acknowledgement("fast", 2))));
        assert!(sent(&mut outbox, now + later(1200)).is_empty());
        assert_eq!(ids(&sent(&mut outbox, now + later(1400))), ["fast"]);
    }

    /// Of reports that were not sent only the newest is kept, and a later one waits for the answer.
    #[test]
    fn only_the_newest_report_is_sent() {
        let mut outbox = Outbox::default();
        let (number, _) = hold(&mut outbox, "a", 60);
        let now = Instant::now();
        let report = |share| PackedReport { progress: Some(share), ..PackedReport::default() };
        outbox.report(number, report(0.1)).expect("held");
        outbox.report(number, report(0.2)).expect("held");
        assert_eq!(sent(&mut outbox, now)[0].progress, Some(0.2));
        outbox.report(number, report(0.3)).expect("held");
        assert!(sent(&mut outbox, now).is_empty());
        let acknowledgements = vec![acknowledgement("a", 1), acknowledgement("a", 2)];
        outbox.take(StreamProgressResponse { acknowledgements, item: None });
        assert!(outbox.is_stored(number, 2).expect("held"));
        assert_eq!(sent(&mut outbox, now)[0].progress, Some(0.3));
    }

    /// After a limit only leases are renewed, without reports; these follow when it is over.
    #[test]
    fn only_leases_are_renewed_after_a_limit() {
        let mut outbox = Outbox::default();
        let (number, _) = hold(&mut outbox, "a", 3);
        let now = Instant::now();
        let report = PackedReport { progress: Some(0.5), ..PackedReport::default() };
        outbox.report(number, report).expect("held");
        assert_eq!(sent(&mut outbox, now).len(), 1);
        outbox.begin_again(Some(now + later(1500)));
        assert!(sent(&mut outbox, now + later(100)).is_empty());
        let renewals = sent(&mut outbox, now + later(1100));
        assert_eq!((ids(&renewals), renewals[0].progress), (vec!["a"], None));
        assert!(sent(&mut outbox, now + later(1400)).is_empty());
        outbox.take(response(Item::Acknowledgement(acknowledgement("a", 2))));
        assert_eq!(sent(&mut outbox, now + later(1600))[0].progress, Some(0.5));
    }

    /// What is about an earlier attempt is ignored, and the rest stops the work with its reason.
    #[test]
    fn items_stop_the_work_that_they_are_about() {
        for (item, kind) in [
            (interruption(InterruptionKind::Cancelled, 6), Some(Kind::Cancelled)),
            (interruption(InterruptionKind::Expired, 6), Some(Kind::OperationExpired)),
            (interruption(InterruptionKind::LeaseLost, 6), Some(Kind::StaleAttempt)),
            (interruption(InterruptionKind::LeaseLost, 5), None),
            (error("STALE_ATTEMPT", &[("expected", "1")]), None),
            (error("STALE_ATTEMPT", &[("expected", "2")]), Some(Kind::StaleAttempt)),
            (error("OPERATION_DELETED", &[]), Some(Kind::OperationDeleted)),
        ] {
            let mut outbox = Outbox::default();
            let (number, signals) = hold(&mut outbox, "a", 60);
            outbox.take(item);
            assert_eq!(signals.reason().map(Error::kind), kind);
            assert_eq!(outbox.has_work(), kind.is_none());
            let report = outbox.report(number, PackedReport::default());
            assert_eq!(report.err().map(|error| error.kind()), kind);
        }
    }

    /// A requested cancel is reported at once, and the work goes on.
    #[test]
    fn requested_cancels_are_reported_at_once() {
        let mut outbox = Outbox::default();
        let (_, signals) = hold(&mut outbox, "a", 60);
        let now = Instant::now();
        sent(&mut outbox, now + later(300));
        outbox.take(interruption(InterruptionKind::CancelRequested, 6));
        assert!(signals.cancel_requested().is_cancelled() && signals.reason().is_none());
        assert_eq!(ids(&sent(&mut outbox, Instant::now())), ["a"]);
    }

    /// A temporary refusal is sent again after a pause, another one is returned by the next report.
    #[test]
    fn refused_reports_are_sent_again_or_returned() {
        let mut outbox = Outbox::default();
        let (number, _) = hold(&mut outbox, "a", 60);
        for reason in ["STORE_UNAVAILABLE", "RATE_LIMITED", "LOST_RACE", "INTERNAL", "STREAM_FULL"]
        {
            let again = outbox.take(error(reason, &[]));
            assert_eq!(again.map(|(number, _)| number), Some(number), "{reason}");
        }
        assert!(outbox.take(error("PROGRESS_DECREASE", &[])).is_none());
        let refused = outbox.report(number, PackedReport::default()).expect_err("refused");
        assert!(refused.is(Kind::ProgressDecrease));
        outbox.report(number, PackedReport::default()).expect("only once");
    }

    /// The next attempt of an operation stops the work on the earlier one.
    #[test]
    fn the_next_attempt_stops_the_earlier_one() {
        let mut outbox = Outbox::default();
        let (earlier, signals) = hold(&mut outbox, "a", 60);
        hold(&mut outbox, "a", 60);
        assert_eq!(signals.reason().map(Error::kind), Some(Kind::StaleAttempt));
        outbox.drop_held(earlier);
        assert!(outbox.has_work());
    }
}
