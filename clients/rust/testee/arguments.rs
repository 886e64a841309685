//! The arguments of a command.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use milepost::{Any, IntoPayload, Json, Payload, RetryPolicy};
use prost_types::Timestamp;
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeMap as _},
};
use serde_json::Value;

use crate::Problem;

/// One line of the input.
pub(crate) struct Command(pub(crate) Value);

impl Command {
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Return the argument; None if it is absent or null.
    pub(crate) fn present(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.present(name)?.as_str().map(str::to_owned)
    }

    pub(crate) fn required(&self, name: &str) -> Result<String, Problem> {
        self.text(name).ok_or_else(|| Problem::Other(format!("{name} is absent")))
    }

    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let items = self.present(name)?.as_array()?;
        Some(items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.present(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.present(name)?.as_f64()
    }

    pub(crate) fn integer(&self, name: &str) -> Option<i64> {
        self.present(name)?.as_i64()
    }

    pub(crate) fn small(&self, name: &str) -> Option<i32> {
        self.integer(name)?.try_into().ok()
    }

    pub(crate) fn duration(&self, name: &str) -> Result<Option<Duration>, Problem> {
        self.number(name).map(seconds).transpose()
    }

    pub(crate) fn time(&self, name: &str) -> Result<Option<SystemTime>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let time = text.parse::<Timestamp>().map_err(|error| Problem::Other(error.to_string()))?;
        time.try_into().map(Some).map_err(|_| Problem::Unsupported)
    }

    pub(crate) fn retry_policy(&self) -> Result<Option<RetryPolicy>, Problem> {
        let Some(policy) = self.present("retry_policy") else { return Ok(None) };
        let duration = |name: &str| policy[name].as_f64().map(seconds).transpose();
        Ok(Some(RetryPolicy {
            initial_backoff: duration("initial_backoff")?,
            backoff_multiplier: policy["backoff_multiplier"].as_f64(),
            max_backoff: duration("max_backoff")?,
        }))
    }

    /// Return the value of an argument, with those that JSON cannot hold; None if it is absent.
    pub(crate) fn value(&self, name: &str) -> Result<Option<Argument>, Problem> {
        self.get(name).map(Argument::of).transpose()
    }

    /// Return a JSON object; None if it is absent or null.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Special>, Problem> {
        self.present(name).map(|value| Special::of(value.clone())).transpose()
    }
}

fn seconds(number: f64) -> Result<Duration, Problem> {
    Duration::try_from_secs_f64(number).map_err(|_| Problem::Unsupported)
}

/// A result or a checkpoint.
#[derive(Clone)]
pub(crate) enum Argument {
    Json(Special),
    Message(Any),
}

impl Argument {
    fn of(value: &Value) -> Result<Self, Problem> {
        let Some(packed) = value.get("$any") else {
            return Special::of(value.clone()).map(Self::Json);
        };
        let text = |name: &str| packed[name].as_str().unwrap_or_default();
        let value = BASE64_STANDARD.decode(text("value"));
        let value = value.map_err(|error| Problem::Other(error.to_string()))?;
        Ok(Self::Message(Any { type_url: text("type_url").to_owned(), value }))
    }
}

impl IntoPayload for Argument {
    fn into_any(self) -> Result<Option<Any>, milepost::ValueError> {
        match self {
            Self::Json(value) => Json(value).into_any(),
            Self::Message(packed) => Payload::Message(packed).into_any(),
        }
    }
}

/// JSON whose objects may stand for values that JSON cannot hold.
#[derive(Clone)]
pub(crate) struct Special(Value);

impl Special {
    /// Return the value, unless it holds a text that is not Unicode, which Rust cannot hold.
    pub(crate) fn of(mut value: Value) -> Result<Self, Problem> {
        replace_texts(&mut value)?;
        Ok(Self(value))
    }
}

fn replace_texts(value: &mut Value) -> Result<(), Problem> {
    match value {
        Value::Array(items) => items.iter_mut().try_for_each(replace_texts),
        Value::Object(members) => {
            if let Some(Value::Array(units)) = members.get("$utf16") {
                let units: Vec<u16> =
                    units.iter().filter_map(|unit| unit.as_u64()?.try_into().ok()).collect();
                *value = String::from_utf16(&units).map_err(|_| Problem::Unsupported)?.into();
                return Ok(());
            }
            members.values_mut().try_for_each(replace_texts)
        }
        _ => Ok(()),
    }
}

impl Serialize for Special {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().cloned().map(Self)),
            Value::Object(members) => {
                match members.iter().next().map(|(name, member)| (name.as_str(), member)) {
                    Some(("$integer", Value::String(text))) => {
                        serializer.serialize_i128(text.parse().map_err(S::Error::custom)?)
                    }
                    Some(("$number", Value::String(text))) => {
                        serializer.serialize_f64(text.parse().map_err(S::Error::custom)?)
                    }
                    Some(("$cycle", _)) => serializer.collect_seq([self]),
                    Some(("$unserialisable", _)) => Err(S::Error::custom("no JSON")),
                    _ => {
                        let mut map = serializer.serialize_map(Some(members.len()))?;
                        for (name, member) in members {
                            map.serialize_entry(name, &Self(member.clone()))?;
                        }
                        map.end()
                    }
                }
            }
            value => value.serialize(serializer),
        }
    }
}
