//! The loops that compare the client with its bare stub.

use std::{
    future::Future,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use milepost::{
    Client, Failure, Report, Work, Worker,
    proto::{
        GetOperationRequest, StreamProgressRequest,
        operation_service_client::OperationServiceClient,
        worker_service_client::WorkerServiceClient,
    },
};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use crate::{Answer, Problem, arguments::Command};

const ID: &str = "op_0123456789abcdef01234567";
const DEADLINE: Duration = Duration::from_secs(10);
/// The time between two reports of one operation.
const INTERVAL: Duration = Duration::from_millis(100);
/// The clock of /proc.
const TICKS_PER_S: f64 = 100.0;

/// What a loop is to do.
#[derive(Clone)]
struct Load {
    address: String,
    api_key: String,
    function: String,
    duration: Duration,
    concurrency: usize,
}

/// Run one loop, and return how often it went round, in which time and CPU time.
pub(crate) async fn bench(command: &Command) -> Answer {
    let load = Load {
        address: command.required("address")?,
        api_key: command.required("api_key")?,
        function: command.texts("functions").unwrap_or_default().pop().unwrap_or_default(),
        duration: command.duration("seconds")?.unwrap_or_default(),
        concurrency: command.integer("concurrency").and_then(|n| n.try_into().ok()).unwrap_or(1),
    };
    match command.required("loop")?.as_str() {
        "unary" => unary(&load).await,
        "unary_stub" => unary_stub(&load).await,
        "stream" => stream(&load).await,
        "stream_stub" => stream_stub(&load).await,
        _ => Err(Problem::Unsupported),
    }
}

fn other(error: impl std::fmt::Display) -> Problem {
    Problem::Other(error.to_string())
}

/// Return the CPU time of the process in seconds.
fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_S
}

/// Run so many tasks, and return the sum of their rounds and what they took.
async fn measure<F>(concurrency: usize, task: impl Fn(usize) -> F) -> Answer
where
    F: Future<Output = Result<u64, Problem>> + Send + 'static,
{
    let (begin, cpu) = (Instant::now(), cpu_s());
    let tasks: Vec<_> = (0..concurrency).map(|number| tokio::spawn(task(number))).collect();
    let mut calls = 0;
    for rounds in try_join_all(tasks).await.map_err(other)? {
        calls += rounds?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(json!({"calls": calls, "seconds": seconds, "cpu_seconds": cpu_s() - cpu}))
}

async fn unary(load: &Load) -> Answer {
    let client = Client::builder(&load.address).api_key(&load.api_key).build()?;
    let measured = measure(load.concurrency, |_| {
        let (client, end) = (client.clone(), Instant::now() + load.duration);
        async move {
            let mut count = 0;
            while Instant::now() < end {
                client.get(ID).await?;
                count += 1;
            }
            Ok(count)
        }
    });
    let measured = measured.await;
    client.close().await;
    measured
}

async fn connect(load: &Load) -> Result<Channel, Problem> {
    let uri = format!("http://{}", load.address);
    Channel::from_shared(uri).map_err(other)?.connect().await.map_err(other)
}

async fn unary_stub(load: &Load) -> Answer {
    let stub = OperationServiceClient::new(connect(load).await?);
    let header: MetadataValue<_> = format!("Bearer {}", load.api_key).parse().map_err(other)?;
    measure(load.concurrency, |_| {
        let (mut stub, header) = (stub.clone(), header.clone());
        let end = Instant::now() + load.duration;
        async move {
            let mut count = 0;
            while Instant::now() < end {
                let mut request = Request::new(GetOperationRequest { operation_id: ID.to_owned() });
                request.set_timeout(DEADLINE);
                request.metadata_mut().insert("authorization", header.clone());
                stub.get_operation(request).await.map_err(other)?;
                count += 1;
            }
            Ok(count)
        }
    })
    .await
}

/// Report once in each interval, each operation at a moment of its own.
async fn paced(
    load: &Load,
    number: usize,
    report: impl Fn(f64) -> Result<(), Problem>,
) -> Result<u64, Problem> {
    let share = f64::from(u32::try_from(number).unwrap_or(0))
        / f64::from(u32::try_from(load.concurrency).unwrap_or(1));
    tokio::time::sleep(INTERVAL.mul_f64(share)).await;
    let rounds = u32::try_from(load.duration.as_millis() / INTERVAL.as_millis()).unwrap_or(0);
    let mut ticks = tokio::time::interval(INTERVAL);
    for round in 0..rounds {
        ticks.tick().await;
        report(f64::from(round) / f64::from(rounds))?;
    }
    Ok(rounds.into())
}

async fn stream(load: &Load) -> Answer {
    let client = Client::builder(&load.address).api_key(&load.api_key).build()?;
    let (begin, mut works_begun) = mpsc::unbounded_channel();
    let (finished, stop) = (CancellationToken::new(), CancellationToken::new());
    let handler = {
        let finished = finished.clone();
        move |work: Work| {
            let (begin, finished) = (begin.clone(), finished.clone());
            async move {
                let _ = begin.send(work);
                finished.cancelled().await;
                Ok::<_, Failure>(())
            }
        }
    };
    let worker = Worker::builder(&client).handle(&load.function, handler);
    let worker = worker.concurrency(load.concurrency).build()?;
    let stopped = stop.clone().cancelled_owned();
    let running = tokio::spawn(async move { worker.run(stopped).await });
    let mut works = Vec::new();
    while works.len() < load.concurrency {
        works.push(works_begun.recv().await.ok_or_else(|| other("the worker has ended"))?);
    }
    let measured = measure(load.concurrency, |number| {
        let (load, work) = (load.clone(), works[number].clone());
        async move {
            let report = |share| work.report(Report::new().progress(share)).map_err(Problem::from);
            paced(&load, number, report).await
        }
    });
    let measured = measured.await;
    finished.cancel();
    stop.cancel();
    running.await.map_err(other)??;
    measured
}

async fn stream_stub(load: &Load) -> Answer {
    let mut stub = WorkerServiceClient::new(connect(load).await?);
    let (sender, mut reports) = mpsc::unbounded_channel();
    let requests = futures_util::stream::poll_fn(move |context| reports.poll_recv(context));
    let mut request = Request::new(requests);
    let header = format!("Bearer {}", load.api_key).parse().map_err(other)?;
    request.metadata_mut().insert("authorization", header);
    let reading = tokio::spawn(async move {
        let mut answers = stub.stream_progress(request).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    });
    let sender = Arc::new(Mutex::new(sender));
    let measured = measure(load.concurrency, |number| {
        let (load, sender) = (load.clone(), sender.clone());
        async move {
            let report = |share| {
                let request = StreamProgressRequest {
                    operation_id: format!("op_{number:024x}"),
                    attempt: Some(1),
                    progress: Some(share),
                    ..Default::default()
                };
                sender.lock().map_err(other)?.send(request).map_err(other)
            };
            paced(&load, number, report).await
        }
    });
    let measured = measured.await;
    drop(sender);
    reading.await.map_err(other)?.map_err(other)?;
    measured
}
