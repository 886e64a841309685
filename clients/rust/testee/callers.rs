//! The commands of callers.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use milepost::{Client, Items, Operation, Status, Tls, UniqueKeyPolicy};
use serde_json::{Value, json};

use crate::{Answer, Connection, Problem, Sequence, Testee, arguments::Command, output};

/// Apply the setter of each argument that is present.
macro_rules! with_arguments {
    ($call:ident, $command:ident, $($method:ident: $argument:expr),+ $(,)?) => {
        $(if let Some(value) = $argument {
            $call = $call.$method(value);
        })+
    };
}

pub(crate) use with_arguments;

pub(crate) async fn connect(testee: &Testee, command: &Command) -> Answer {
    let token = Arc::new(Mutex::new(command.text("token").unwrap_or_default()));
    let mut builder = Client::builder(command.required("address")?);
    with_arguments!(builder, command,
        api_key: command.text("api_key"),
        deadline: command.duration("deadline")?,
        tls: tls(command).await?,
    );
    if command.text("token").is_some() {
        let source = token.clone();
        builder = builder.token_source(move || {
            let token = source.lock().unwrap_or_else(PoisonError::into_inner).clone();
            async move { Ok(token) }
        });
    }
    if command.flag("insecure") {
        builder = builder.insecure();
    }
    let client = builder.build()?;
    Ok(json!({"client": testee.connections.put(Connection { client, token })}))
}

async fn tls(command: &Command) -> Result<Option<Tls>, Problem> {
    let read = async |name: &str| match command.text(name) {
        Some(path) => match tokio::fs::read(path).await {
            Ok(pem) => Ok(Some(pem)),
            Err(error) => Err(Problem::Other(error.to_string())),
        },
        None => Ok(None),
    };
    let (authority, certificate) = (read("ca_file").await?, read("certificate_file").await?);
    if authority.is_none() && certificate.is_none() {
        return Ok(None);
    }
    let mut tls = Tls::new();
    if let Some(pem) = authority {
        tls = tls.authorities(pem);
    }
    if let (Some(certificate), Some(key)) = (certificate, read("key_file").await?) {
        tls = tls.identity(certificate, key);
    }
    Ok(Some(tls))
}

/// Return the client of the command.
pub(crate) fn client(testee: &Testee, command: &Command) -> Result<Client, Problem> {
    Ok(testee.connections.get(&command.required("client")?)?.client)
}

/// Return the client and the id of the operation of the command.
pub(crate) fn target(testee: &Testee, command: &Command) -> Result<(Client, String), Problem> {
    Ok((client(testee, command)?, command.text("operation_id").unwrap_or_default()))
}

pub(crate) fn set_token(testee: &Testee, command: &Command) -> Answer {
    let connection = testee.connections.get(&command.required("client")?)?;
    let token = command.required("token")?;
    *connection.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    Ok(json!({}))
}

pub(crate) async fn disconnect(testee: &Testee, command: &Command) -> Answer {
    client(testee, command)?.close().await;
    Ok(json!({}))
}

pub(crate) async fn create(testee: &Testee, command: &Command) -> Answer {
    let client = client(testee, command)?;
    let mut call = client.create(command.text("function").unwrap_or_default());
    let policy = command.text("unique_key_policy");
    with_arguments!(call, command,
        request_id: command.text("request_id"),
        version: command.text("version"),
        original_request_id: command.text("original_request_id"),
        callback_url: command.text("callback_url"),
        callback_events: command.texts("callback_events"),
        ttl: command.duration("ttl")?,
        retry_after: command.duration("retry_after")?,
        max_attempts: command.small("max_attempts"),
        schedule_time: command.time("schedule_time")?,
        priority: command.small("priority"),
        unique_key: command.text("unique_key"),
        unique_key_policy: policy.map(|name| match name.as_str() {
            "REFUSE" => UniqueKeyPolicy::Refuse,
            _ => UniqueKeyPolicy::Join,
        }),
        retry_policy: command.retry_policy()?,
        queue_timeout: command.duration("queue_timeout")?,
        run_timeout: command.duration("run_timeout")?,
        metadata: command.object("metadata")?,
    );
    Ok(output::operation(&call.await?))
}

pub(crate) async fn get(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    Ok(output::operation(&client.get(id).await?))
}

pub(crate) async fn wait(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    Ok(output::operation(&client.wait(id, command.duration("timeout")?).await?))
}

pub(crate) async fn result(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let operation = client.completed(id, command.duration("timeout")?).await?;
    Ok(match &operation.result {
        Some(result) => json!({"result": output::payload(result)}),
        None => json!({}),
    })
}

pub(crate) async fn cancel(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let mut call = client.cancel(id);
    with_arguments!(call, command,
        reason: command.text("reason"),
        grace: command.duration("grace")?,
        expected_revision: command.integer("expected_revision"),
        request_id: command.text("request_id"),
    );
    Ok(output::operation(&call.await?))
}

pub(crate) async fn delete(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let mut call = client.delete(id);
    with_arguments!(call, command,
        expected_revision: command.integer("expected_revision"),
        request_id: command.text("request_id"),
    );
    call.await?;
    Ok(json!({}))
}

/// Keep a sequence under a handle.
pub(crate) fn keep<T: Send + 'static>(
    testee: &Testee,
    items: Items<T>,
    convert: fn(&T) -> Value,
) -> Value {
    let items = items.map(move |item| item.map(|item| convert(&item)));
    let sequence = Arc::new(tokio::sync::Mutex::new(Some(items.boxed())));
    json!({"stream": testee.sequences.put(sequence)})
}

pub(crate) fn list(testee: &Testee, command: &Command) -> Answer {
    let mut list = client(testee, command)?.list();
    let statuses = command.texts("statuses");
    with_arguments!(list, command,
        statuses: statuses.map(|names| names.into_iter().map(|name| Status::named(&name))),
        function: command.text("function"),
        created_from: command.time("created_from")?,
        created_before: command.time("created_before")?,
        owner: command.text("owner"),
        page_size: command.small("page_size"),
    );
    if command.flag("full") {
        list = list.full();
    }
    Ok(keep(testee, list.items(), output::operation as fn(&Operation) -> Value))
}

pub(crate) fn events(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let size = command.small("page_size").unwrap_or(0);
    Ok(keep(testee, client.events_by(id, size), output::event))
}

pub(crate) fn watch(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let revision = command.integer("after_revision").unwrap_or(0);
    Ok(keep(testee, client.watch_after(id, revision), output::operation))
}

fn sequence(testee: &Testee, command: &Command) -> Result<Sequence, Problem> {
    testee.sequences.get(&command.required("stream")?)
}

pub(crate) async fn next(testee: &Testee, command: &Command) -> Answer {
    let sequence = sequence(testee, command)?;
    let mut items = sequence.lock().await;
    let item = match items.as_mut() {
        Some(items) => items.next().await,
        None => None,
    };
    match item {
        Some(item) => Ok(json!({"item": item?})),
        None => Ok(json!({"end": true})),
    }
}

pub(crate) fn close(testee: &Testee, command: &Command) -> Answer {
    let sequence = sequence(testee, command)?;
    if let Ok(mut items) = sequence.try_lock() {
        items.take(); // a `next` that waits keeps it
    }
    Ok(json!({}))
}
