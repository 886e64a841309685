//! Callers against a real service.

mod service;

use std::time::{Duration, Instant, SystemTime};

use milepost::{
    Client, Json, Kind, NextStep, OperationError, Payload, RetryPolicy, Status, Tls,
    UniqueKeyPolicy,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use service::{Service, unique_function};

/// Every argument of a create is stored, and a repeated create is replayed.
#[tokio::test]
async fn create_sets_every_field() {
    let service = service::shared();
    let alice = service.client("CALLER");
    let schedule_time = SystemTime::UNIX_EPOCH
        + Duration::from_secs(
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs()
                + 3600,
        );
    let policy = RetryPolicy {
        initial_backoff: Some(Duration::ZERO),
        backoff_multiplier: Some(3.0),
        max_backoff: Some(Duration::from_secs(60)),
    };
    let create = || {
        alice
            .create("video.transcode")
            .version("2")
            .metadata(json!({"a": [1.5, null, "ü"]}))
            .request_id("rust-1")
            .original_request_id("web-7")
            .ttl(Duration::from_secs(3600))
            .retry_after(Duration::from_secs(2))
            .max_attempts(5)
            .queue_timeout(Duration::from_secs(60))
            .run_timeout(Duration::from_secs(120))
            .schedule_time(schedule_time)
            .priority(0)
            .unique_key("key-1")
            .unique_key_policy(UniqueKeyPolicy::Refuse)
            .retry_policy(policy)
    };
    let operation = create().await.expect("an operation");
    assert_eq!((operation.status, operation.next_step), (Status::Pending, Some(NextStep::Claim)));
    assert_eq!(operation.version.as_deref(), Some("2"));
    assert_eq!(json!(operation.metadata), json!({"a": [1.5, null, "ü"]}));
    assert_eq!(operation.original_request_id.as_deref(), Some("web-7"));
    assert_eq!(operation.ttl, Some(Duration::from_secs(3600)));
    assert_eq!(operation.retry_after, Some(Duration::from_secs(2)));
    assert_eq!((operation.max_attempts, operation.priority), (5, 0));
    assert_eq!(operation.queue_timeout, Some(Duration::from_secs(60)));
    assert_eq!(operation.run_timeout, Some(Duration::from_secs(120)));
    assert_eq!(operation.schedule_time, Some(schedule_time));
    assert_eq!((operation.unique_key.as_deref(), operation.retry_policy), (Some("key-1"), policy));
    let again = create().await.expect("the operation again");
    assert!(again.id == operation.id && again.replayed && !operation.replayed);
    let same_key = || alice.create("video.transcode").unique_key("key-1");
    let refused = same_key().unique_key_policy(UniqueKeyPolicy::Refuse).await.expect_err("taken");
    assert!(refused.is(Kind::UniqueKeyTaken));
    assert_eq!(refused.api().and_then(|facts| facts.operation_id()), Some(operation.id.as_str()));
    let joined = same_key().await.expect("the operation");
    assert!(joined.id == operation.id && joined.joined);
    let refused = alice.create("f").metadata([1]).await.expect_err("not an object");
    assert!(refused.is(Kind::Value));
}

/// A list goes over all pages, and ends where its reader leaves it.
#[tokio::test]
async fn lists_go_over_all_pages() {
    let service = service::shared();
    let alice = service.client("CALLER");
    let function = unique_function();
    let mut created = Vec::new();
    for _ in 0..7 {
        created.push(alice.create(&function).await.expect("an operation").id);
    }
    created.reverse();
    let mut items =
        alice.list().function(&function).page_size(3).statuses([Status::Pending]).items();
    let mut listed = Vec::new();
    while let Some(operation) = items.next().await {
        listed.push(operation.expect("an operation").id);
    }
    assert_eq!(listed, created);
    let mut none = alice.list().function(&function).statuses([Status::Failed]).full().items();
    assert!(none.next().await.is_none());
}

/// The kind of an error follows from its reason.
#[tokio::test]
async fn errors_are_typed_by_their_reason() {
    let service = service::shared();
    let alice = service.client("CALLER");
    let id = format!("op_{}", "0".repeat(24));
    let unknown = alice.get(&id).await.expect_err("unknown");
    assert!(unknown.is(Kind::OperationNotFound) && unknown.is(Kind::NotFound));
    assert_eq!(unknown.reason(), "OPERATION_NOT_FOUND");
    assert_eq!(unknown.code(), Some(milepost::Code::NotFound));
    let invalid = alice.create(" ").version("v".repeat(300)).await.expect_err("invalid");
    assert!(invalid.is(Kind::InvalidRequest));
    assert_eq!(invalid.api().expect("facts").violations.len(), 2);
    let pending = alice.create("f").await.expect("an operation");
    let illegal = alice.complete(&pending.id, ()).await.expect_err("illegal");
    let facts = illegal.api().expect("facts");
    assert_eq!(
        (facts.status(), facts.allowed()),
        (Some(Status::Pending), vec![Status::Processing])
    );
    assert_eq!(facts.transition(), Some("complete"));
    let stranger = Client::builder(&service.address).api_key("mk_wrong").build().expect("a client");
    assert!(stranger.get(&id).await.expect_err("unknown key").is(Kind::Unauthenticated));
}

#[derive(Serialize, Deserialize, Debug, PartialEq)]
struct Frames {
    frames: u64,
}

/// Results come back as they were stored; null and no result stay apart.
#[tokio::test]
async fn results_keep_their_values() {
    let service = service::shared();
    let alice = service.client("CALLER");
    for value in [
        json!(null),
        json!(true),
        json!(""),
        json!("😀 \u{0}\u{fffd}"),
        json!(0.1),
        json!(1_i64 << 53),
        json!([]),
        json!({"": null}),
        json!("x".repeat(1_000_000)),
    ] {
        let id = alice.create("f").await.expect("an operation").id;
        alice.start(&id).await.expect("started");
        alice.complete(&id, value.clone()).await.expect("completed");
        let operation = alice.completed(&id, None).await.expect("a result");
        assert_eq!(operation.result, Some(Payload::Json(value)));
    }
    let id = alice.create("f").await.expect("an operation").id;
    alice.start(&id).await.expect("started");
    let refused = alice.complete(&id, Json(f64::NAN)).await.expect_err("NaN");
    assert!(refused.is(Kind::Value));
    alice.complete(&id, Json(Frames { frames: 1200 })).await.expect("completed");
    let frames: Frames = alice.result(&id, Duration::from_secs(60)).await.expect("a result");
    assert_eq!(frames, Frames { frames: 1200 });
    let id = alice.create("f").await.expect("an operation").id;
    alice.start(&id).await.expect("started");
    alice.complete(&id, ()).await.expect("completed");
    assert_eq!(alice.get(&id).await.expect("the operation").result, None);
    assert_eq!(alice.result::<Option<Value>>(&id, None).await.expect("no result"), None);
}

/// An error says why there is no result, and events and deletion follow.
#[tokio::test]
async fn result_says_why_there_is_none() {
    let service = service::shared();
    let alice = service.client("CALLER");
    let id = alice.create("f").await.expect("an operation").id;
    let running = alice.result::<Value>(&id, Duration::from_millis(50)).await;
    assert!(running.expect_err("running").is(Kind::StillRunning));
    alice.cancel(&id).reason("no need").await.expect("cancelled");
    let cancelled = alice.result::<Value>(&id, None).await.expect_err("cancelled");
    assert!(cancelled.is(Kind::OperationCancelled));
    let reason = cancelled.operation().and_then(|operation| operation.cancel_reason.clone());
    assert_eq!(reason.as_deref(), Some("no need"));
    let mut events = alice.events_by(&id, 1);
    let mut transitions = Vec::new();
    while let Some(event) = events.next().await {
        transitions.push(event.expect("an event").transition);
    }
    assert_eq!(transitions, ["create", "cancel"]);
    alice.delete(&id).await.expect("deleted");
    assert!(alice.get(&id).await.expect_err("deleted").is(Kind::OperationDeleted));
}

/// A worker of one's own claims, reports, releases and fails by single calls.
#[tokio::test]
async fn workers_by_hand() {
    let service = service::shared();
    let (alice, worker) = (service.client("CALLER"), service.client("WORKER"));
    let function = unique_function();
    let id = alice.create(&function).await.expect("an operation").id;
    let claim = || worker.claim([&function]).timeout(Duration::from_secs(1)).worker("by hand");
    let first = claim().lease(Duration::from_secs(5)).await.expect("a claim").remove(0);
    assert_eq!((&first.id, first.attempt), (&id, 1));
    let report = worker.update_progress(&id).progress(0.25).message("a quarter");
    report.checkpoint(json!(["at", 7])).attempt(1).await.expect("stored");
    let refused = worker.acknowledge_cancellation(&id).attempt(1).await.expect_err("refused");
    assert!(refused.is(Kind::CancellationNotRequested));
    let released = worker.release(&id).attempt(1).reason("later").await.expect("released");
    assert_eq!((released.status, released.failed_attempts), (Status::Pending, 0));
    let second = claim().await.expect("a claim").remove(0);
    let stale = worker.complete(&id, ()).attempt(1).await.expect_err("stale");
    assert!(stale.is(Kind::StaleAttempt) && stale.is(Kind::Conflict));
    let checkpoint: Option<(String, u8)> = second.decode_checkpoint().expect("a checkpoint");
    assert_eq!(checkpoint, Some(("at".to_owned(), 7)));
    let mut error = OperationError::new("E", "m");
    error.details = json!({"n": 1}).as_object().cloned();
    let failed = worker.fail(&id, [error.clone()]).attempt(2).await.expect("failed");
    assert_eq!((failed.status, failed.errors), (Status::Failed, vec![error]));
}

/// A service that cannot be reached is a typed error within the deadline of the call.
#[tokio::test]
async fn unreachable_services_are_reported_in_time() {
    let builder = Client::builder("127.0.0.1:1").api_key("key");
    let client = builder.deadline(Duration::from_millis(300)).build().expect("a client");
    let begin = Instant::now();
    let away = client.get("op_1").await.expect_err("away");
    assert!(away.is(Kind::Unavailable), "{away}");
    assert!(away.to_string().contains("refused"), "{away}");
    let away = client.watch("op_1").next().await.expect("an item").expect_err("away");
    assert!(away.is(Kind::Unavailable) && begin.elapsed() < Duration::from_secs(5), "{away}");
    let client = Client::builder("milepost.invalid:1").insecure().build().expect("a client");
    let get = tokio::time::timeout(Duration::from_secs(60), client.get("op_1"));
    let unknown = get.await.expect("in time").expect_err("unknown name");
    assert!(unknown.is(Kind::Unavailable) || unknown.is(Kind::DeadlineExceeded), "{unknown}");
    client.close().await;
    assert!(client.get("op_1").await.expect_err("closed").is(Kind::Closed));
}

/// Calls in flight end as soon as the client is closed, and so does its connection.
#[tokio::test]
async fn closed_clients_end_their_calls() {
    let service = Service::start(&[]);
    let alice = service.client("CALLER");
    let id = alice.create(unique_function()).await.expect("an operation").id;
    let (waiting, closing) = (alice.clone(), alice.clone());
    let mut watch = alice.watch(&id);
    assert!(watch.next().await.expect("an item").is_ok());
    let begin = Instant::now();
    let (waited, watched, ()) = tokio::join!(waiting.wait(&id, None), watch.next(), async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        closing.close().await;
    });
    assert!(waited.expect_err("closed").is(Kind::Closed));
    assert!(watched.expect("an item").expect_err("closed").is(Kind::Closed));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

/// A watch misses no change over restarts of the service, and a client outlives its runtime.
#[test]
fn watches_resume() {
    let service = Service::start(&[]);
    let (alice, worker) = (service.client("CALLER"), service.client("WORKER"));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let function = unique_function();
    let creating = alice.create(&function).into_future();
    let id = runtime().expect("a runtime").block_on(creating).expect("an operation").id;
    runtime().expect("another runtime").block_on(async {
        let mut statuses = Vec::new();
        let mut watch = alice.watch(&id);
        while let Some(operation) = watch.next().await {
            let operation = operation.expect("a change");
            statuses.push(operation.status);
            match operation.status {
                Status::Pending => {
                    service.turn("kill");
                    service.turn("start");
                    worker.claim([&function]).await.expect("a claim");
                }
                Status::Processing => {
                    service.turn("stop");
                    service.turn("start");
                    worker.complete(&id, "end").await.expect("completed");
                }
                _ => {}
            }
        }
        assert_eq!(statuses, [Status::Pending, Status::Processing, Status::Completed]);
        let mut later = alice.watch_after(&id, 2);
        assert_eq!(later.next().await.expect("an item").expect("a change").revision, 3);
        assert!(later.next().await.is_none());
    });
}

use std::future::IntoFuture as _;

/// TLS trusts the authority that it is given, and no other.
#[tokio::test]
async fn tls_trusts_the_given_authority_alone() {
    let service = Service::start(&["--tls"]);
    let key = service.key("CALLER");
    let builder = || Client::builder(&service.address).api_key(&key);
    let pem = std::fs::read(service.ca_file.as_ref().expect("an authority")).expect("a PEM");
    let client = builder().tls(Tls::new().authorities(pem)).build().expect("a client");
    let operation = client.create("f").await.expect("an operation");
    let short = Duration::from_millis(500);
    let system = builder().tls(Tls::new()).deadline(short).build().expect("a client");
    let refused = system.get(&operation.id).await.expect_err("an unknown authority");
    assert!(refused.is(Kind::Unavailable), "{refused}");
    assert!(refused.to_string().contains("certificate"), "{refused}");
    let plain = builder().deadline(short).build().expect("a client");
    let refused = plain.get(&operation.id).await.expect_err("plain text");
    assert!(refused.is(Kind::Api) && refused.reason().is_empty(), "{refused}");
}
