//! Results and checkpoints: JSON, or any protobuf message.

use prost::{Message, Name};
use prost_types::{Any, ListValue, Struct};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::{Result, ValueError},
    json,
};

const TYPE_PREFIX: &str = "type.googleapis.com/";

/// A result or a checkpoint, as it was read.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Payload {
    /// JSON; null is a value. A number without a fraction is an integer.
    Json(serde_json::Value),
    /// Any other message, as it was packed.
    Message(Any),
}

impl Payload {
    /// Return the JSON; None for another message.
    #[must_use]
    pub fn as_json(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Json(value) => Some(value),
            Self::Message(_) => None,
        }
    }

    /// Return the JSON as a value of your own type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        match self {
            Self::Json(value) => serde_json::from_value(value.clone())
                .map_err(|error| ValueError(format!("the JSON has another form: {error}")).into()),
            Self::Message(packed) => {
                Err(ValueError(format!("a {} is not JSON", packed.type_url)).into())
            }
        }
    }

    /// Return the message that was packed.
    pub fn unpack<M: Message + Name + Default>(&self) -> Result<M> {
        let refused = |problem: String| ValueError(problem).into();
        match self {
            Self::Json(_) => Err(refused(format!("JSON is not a {}", M::full_name()))),
            Self::Message(packed)
                if !packed.type_url.ends_with(&format!("/{}", M::full_name())) =>
            {
                Err(refused(format!("a {} is not a {}", packed.type_url, M::full_name())))
            }
            Self::Message(packed) => M::decode(packed.value.as_slice())
                .map_err(|error| refused(format!("the message cannot be decoded: {error}"))),
        }
    }

    /// Return the plain value of packed JSON, and anything else, or undecodable, unchanged.
    pub(crate) fn from_any(packed: Any) -> Self {
        let bytes = packed.value.as_slice();
        let name = packed.type_url.rsplit('/').next().unwrap_or_default();
        let value = match name {
            "google.protobuf.Value" => prost_types::Value::decode(bytes).map(json::from_value),
            "google.protobuf.Struct" => Struct::decode(bytes)
                .map(|found| serde_json::Value::Object(json::from_struct(found))),
            "google.protobuf.ListValue" => ListValue::decode(bytes).map(json::from_list),
            _ => return Self::Message(packed),
        };
        value.map_or(Self::Message(packed), Self::Json)
    }
}

/// A value that can be a result or a checkpoint.
///
/// `()` and `None` stand for no value. [`serde_json::Value`], texts, booleans and numbers are JSON,
/// and so is what a [`Json`] holds. A [`Packed`] or an [`Any`] is a message.
pub trait IntoPayload {
    /// Return the packed message; None for no value.
    #[doc(hidden)]
    fn into_any(self) -> std::result::Result<Option<Any>, ValueError>;
}

/// Any value that implements [`Serialize`], as JSON.
#[derive(Debug, Clone, Copy)]
pub struct Json<T>(pub T);

/// Any protobuf message, which is packed.
#[derive(Debug, Clone, Copy)]
pub struct Packed<M>(pub M);

fn pack_json(value: &(impl Serialize + ?Sized)) -> std::result::Result<Option<Any>, ValueError> {
    Ok(Some(Any {
        type_url: format!("{TYPE_PREFIX}google.protobuf.Value"),
        value: json::to_value(value)?.encode_to_vec(),
    }))
}

impl IntoPayload for () {
    fn into_any(self) -> std::result::Result<Option<Any>, ValueError> {
        Ok(None)
    }
}

impl<T: Serialize> IntoPayload for Json<T> {
    fn into_any(self) -> std::result::Result<Option<Any>, ValueError> {
        pack_json(&self.0)
    }
}

impl<M: Message + Name> IntoPayload for Packed<M> {
    fn into_any(self) -> std::result::Result<Option<Any>, ValueError> {
        let type_url = format!("{TYPE_PREFIX}{}", M::full_name());
        Ok(Some(Any { type_url, value: self.0.encode_to_vec() }))
    }
}

impl IntoPayload for Any {
    fn into_any(self) -> std::result::Result<Option<Any>, ValueError> {
        Ok(Some(self))
    }
}

impl IntoPayload for Payload {
    fn into_any(self) -> std::result::Result<Option<Any>, ValueError> {
        match self {
            Self::Json(value) => pack_json(&value),
            Self::Message(packed) => Ok(Some(packed)),
        }
    }
}

impl<P: IntoPayload> IntoPayload for Option<P> {
    fn into_any(self) -> std::result::Result<Option<Any>, ValueError> {
        self.map_or(Ok(None), IntoPayload::into_any)
    }
}

macro_rules! plain {
    ($($type:ty),*) => {
        $(impl IntoPayload for $type {
            fn into_any(self) -> std::result::Result<Option<Any>, ValueError> {
                pack_json(&self)
            }
        })*
    };
}

plain! {
    serde_json::Value, serde_json::Map<String, serde_json::Value>, &serde_json::Value, String, &str,
    bool, i32, i64, u32, u64, usize, f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::proto::RetryPolicy;

    fn round_trip(value: impl IntoPayload) -> Option<Payload> {
        value.into_any().expect("storable").map(Payload::from_any)
    }

    /// Null, no value, JSON and messages stay apart.
    #[test]
    fn payloads_come_back_as_they_are() {
        assert_eq!(round_trip(()), None);
        assert_eq!(round_trip(None::<i32>), None);
        assert_eq!(round_trip(json!(null)), Some(Payload::Json(json!(null))));
        let number = round_trip(Json(Some(1200_u32))).expect("a value");
        assert_eq!(number.decode::<u64>().expect("a number"), 1200);
        assert!(number.decode::<String>().is_err() && number.unpack::<RetryPolicy>().is_err());
        let policy = RetryPolicy { backoff_multiplier: Some(3.0), ..Default::default() };
        let packed = round_trip(Packed(policy)).expect("a message");
        assert_eq!(packed.unpack::<RetryPolicy>().expect("the message"), policy);
        assert!(packed.decode::<u64>().is_err() && packed.as_json().is_none());
    }

    /// Structs and lists of other clients are JSON; what cannot be decoded stays as it is.
    #[test]
    fn messages_of_other_clients_are_read() {
        let any =
            |name: &str, value: Vec<u8>| Any { type_url: format!("{TYPE_PREFIX}{name}"), value };
        let members = json::to_struct(&json!({"a": 1})).expect("an object");
        let found = Payload::from_any(any("google.protobuf.Struct", members.encode_to_vec()));
        assert_eq!(found, Payload::Json(json!({"a": 1})));
        let list = ListValue { values: vec![json::to_value(&true).expect("JSON")] };
        let found = Payload::from_any(any("google.protobuf.ListValue", list.encode_to_vec()));
        assert_eq!(found, Payload::Json(json!([true])));
        let broken = any("google.protobuf.Value", vec![0xff]);
        assert_eq!(Payload::from_any(broken.clone()), Payload::Message(broken));
        let foreign = any("new.Message", b"x".to_vec());
        assert_eq!(Payload::from_any(foreign.clone()), Payload::Message(foreign));
    }
}
