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

/// Maximum of the updates in one message, and of its size, unless it is one update.
const MAX_UPDATES: usize = 1_000;
const MAX_MESSAGE_BYTES: usize = 512 * 1024;

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

    /// Send again what the last stream may have lost, or everything but after a limit; return the
    /// time of the next renewal.
    pub(crate) fn begin_again(&mut self, quiet_end: Option<Instant>) -> Option<Instant> {
        self.quiet_end = quiet_end;
        for number in self.numbers.values() {
            let Some(held) = self.held.get_mut(number) else { continue };
            if quiet_end.is_none() || held.is_unanswered() {
                self.unsent.insert(*number);
                held.lose_acknowledgements();
            }
        }
        self.next_due_time = None; // time passes without a look at the leases
        self.numbers.values().filter_map(|number| Some(self.held.get(number)?.due_time)).min()
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

    /// Enqueue the operations whose leases are to be renewed, and those whose turn is near.
    fn enqueue_due(&mut self, now: Instant) {
        let mut next = now + Duration::from_secs(3600);
        for number in self.numbers.values() {
            let Some(held) = self.held.get(number) else {
                continue;
            };
            if held.early_time <= now {
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
        let mut next_ready: Option<Instant> = None;
        for number in &self.unsent {
            let Some(held) = self.held.get(number) else { continue };
            let ready_time = if is_quiet { Some(held.early_time) } else { held.ready_time() };
            match ready_time.filter(|time| *time > now && !self.is_closing) {
                None => waiting.push((held.lease_end_time(), *number)),
                Some(time) => next_ready = next_ready.into_iter().chain([time]).min(),
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
            let Some(held) = self.held.get_mut(&number) else { continue };
            size += held.size();
            if !updates.is_empty() && (updates.len() >= MAX_UPDATES || size > MAX_MESSAGE_BYTES) {
                break;
            }
            updates.push(held.take(now, is_bare));
            let due_time = held.due_time;
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
                held.expect_at(Instant::now());
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
mod tests;
