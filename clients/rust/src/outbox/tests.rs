//! Tests of the outbox, without a stream.

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
    assert!(sent(&mut outbox, now + later(1100)).is_empty());
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
    for reason in ["STORE_UNAVAILABLE", "RATE_LIMITED", "LOST_RACE", "INTERNAL", "STREAM_FULL"] {
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

/// A renewal may come a little early, together with one that is due.
#[test]
fn renewals_come_together() {
    let mut outbox = Outbox::default();
    for (id, lease_s) in [("a", 30), ("b", 31)] {
        hold(&mut outbox, id, lease_s);
    }
    let now = Instant::now() + later(300);
    assert_eq!(sent(&mut outbox, now).len(), 2);
    for id in ["a", "b"] {
        outbox.take(response(Item::Acknowledgement(acknowledgement(id, 2))));
    }
    assert!(sent(&mut outbox, now + later(9900)).is_empty());
    assert_eq!(ids(&sent(&mut outbox, now + later(10_000))), ["a", "b"]);
}

/// Large reports are spread over several messages.
#[test]
fn messages_are_bounded() {
    let mut outbox = Outbox::default();
    let now = Instant::now();
    for number in 0..20 {
        let (held, _) = hold(&mut outbox, &number.to_string(), 60);
        let checkpoint = prost_types::Any { value: vec![0; 60_000], ..Default::default() };
        let report = PackedReport { checkpoint: Some(checkpoint), ..PackedReport::default() };
        outbox.report(held, report).expect("held");
    }
    let counts: Vec<usize> = (0..3).map(|_| sent(&mut outbox, now).len()).collect();
    assert_eq!(counts, [8, 8, 4]);
}
