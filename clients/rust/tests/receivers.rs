//! Receivers of webhooks against a real service.
#![cfg(feature = "webhook")]

mod service;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, Sender},
    time::Duration,
};

use http::{HeaderMap, HeaderName};
use milepost::{DeliveryStatus, Kind, webhook};
use service::Service;

/// A request that the receiver got.
struct Request {
    headers: HeaderMap,
    body: Vec<u8>,
}

/// Return the request of the connection, and answer it.
fn receive(mut stream: TcpStream) -> Request {
    let mut received = Vec::new();
    let mut headers = HeaderMap::new();
    let begin = loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).expect("a request");
        received.extend_from_slice(&part[..count]);
        if let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
    };
    for line in String::from_utf8_lossy(&received[..begin]).lines().skip(1) {
        if let Some((name, value)) = line.split_once(": ") {
            let name = HeaderName::try_from(name).expect("a name");
            headers.insert(name, value.parse().expect("a value"));
        }
    }
    let length: usize = headers["content-length"].to_str().expect("text").parse().expect("a size");
    let mut body = received.split_off(begin);
    let missing = body.len();
    body.resize(length, 0);
    stream.read_exact(&mut body[missing..]).expect("the body");
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").expect("an answer");
    Request { headers, body }
}

fn serve(listener: &TcpListener, requests: &Sender<Request>) {
    for stream in listener.incoming() {
        if requests.send(receive(stream.expect("a connection"))).is_err() {
            return;
        }
    }
}

/// Webhooks are signed with the secrets, before and after a rotation, and can be sent again.
#[tokio::test]
async fn webhooks_are_signed_and_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || serve(&listener, &sender));
    let next = || requests.recv_timeout(Duration::from_secs(60)).expect("a webhook");
    let ports = format!("webhook_allowed_ports={port}");
    let service = Service::start(&[
        "--webhooks",
        "--set",
        "webhook_allow_http=true",
        "--set",
        "webhook_allowed_networks=127.0.0.0/8",
        "--set",
        &ports,
    ]);
    let alice = service.client("CALLER");
    let none = alice.signing_secrets().await.expect_err("no secret yet");
    assert!(none.is(Kind::SigningSecretNotFound) && none.is(Kind::NotFound));
    let url = format!("http://127.0.0.1:{port}/hook?token=1");
    let id = alice.create("f").callback_url(&url).await.expect("an operation").id;
    let old = alice.signing_secrets().await.expect("a secret").current;
    assert!(!format!("{old:?}").contains(&old.value));
    alice.cancel(&id).await.expect("cancelled");
    let request = next();
    let event = webhook::verify(&request.headers, &request.body, [&old.value]).expect("verified");
    assert_eq!(event.event_type, "operation.cancelled");
    let rotated = alice.rotate_signing_secret().request_id("rotation").await.expect("rotated");
    let previous = rotated.previous.expect("the old secret");
    assert!(previous.value == old.value && previous.expire_time.is_some());
    let mut delivery = None;
    for _ in 0..600 {
        let select = alice.deliveries().operation_id(&id).statuses([DeliveryStatus::Delivered]);
        if let Some(found) = select.items().next().await {
            delivery = Some(found.expect("a delivery"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let delivery = delivery.expect("delivered within 30 s");
    assert_eq!((delivery.id.as_str(), delivery.attempts.len()), (event.id.as_str(), 1));
    assert_eq!(delivery.attempts[0].status_code, Some(204));
    let again = alice.redeliver(&delivery.id).await.expect("sent again");
    assert_eq!(again.status, DeliveryStatus::Pending);
    let request = next();
    let current = &rotated.current.value;
    webhook::verify(&request.headers, &request.body, [current]).expect("the new secret signs too");
    let attempt = alice.send_test_webhook(&url).await.expect("a test");
    assert_eq!((attempt.number, attempt.status_code), (1, Some(204)));
}
