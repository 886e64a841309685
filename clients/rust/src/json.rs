//! JSON as messages, with everything refused that would change on its way.
//!
//! Any value that implements [`Serialize`] becomes a `google.protobuf.Value`. `serde_json` would
//! turn NaN into null, so that this module has a serializer of its own.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::Serialize;

use crate::error::ValueError;
use serializer::{ToValue, problem};

mod serializer;

/// The bound up to which a JSON number, which is a double, holds every integer exactly.
const EXACT_INTEGERS: i64 = 1 << 53;

/// Return the value as a message.
pub(crate) fn to_value(value: &(impl Serialize + ?Sized)) -> Result<Value, ValueError> {
    value.serialize(ToValue::default())
}

/// Return the JSON object as a message.
pub(crate) fn to_struct(value: &(impl Serialize + ?Sized)) -> Result<Struct, ValueError> {
    match to_value(value)?.kind {
        Some(Kind::StructValue(members)) => Ok(members),
        _ => Err(problem("the value is not a JSON object")),
    }
}

/// Return the JSON of a message.
pub(crate) fn from_value(value: Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::NumberValue(number)) => from_number(number),
        Some(Kind::StructValue(members)) => serde_json::Value::Object(from_struct(members)),
        Some(Kind::ListValue(list)) => from_list(list),
    }
}

/// Return the JSON object of a message.
pub(crate) fn from_struct(members: Struct) -> serde_json::Map<String, serde_json::Value> {
    members.fields.into_iter().map(|(name, member)| (name, from_value(member))).collect()
}

/// Return the JSON list of a message.
pub(crate) fn from_list(list: ListValue) -> serde_json::Value {
    list.values.into_iter().map(from_value).collect()
}

/// Return the number: an integer if it is one, so that it can be decoded into the integers of Rust.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "both are exact below the bound"
)]
fn from_number(number: f64) -> serde_json::Value {
    let is_integer = number.fract() == 0.0 && number.abs() <= EXACT_INTEGERS as f64;
    if is_integer && !(number == 0.0 && number.is_sign_negative()) {
        return (number as i64).into();
    }
    number.into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::{serializer::number, *};

    #[derive(Serialize)]
    enum Shape {
        Unit,
        One(i32),
        Two(i32, bool),
        Named { a: Option<char> },
    }

    /// Every value comes back as JSON writes it.
    #[test]
    fn values_come_back_as_they_are() {
        let same = |value: serde_json::Value| {
            assert_eq!(from_value(to_value(&value).expect("JSON")), value);
        };
        same(json!([null, true, "😀 \u{0}\u{fffd}", 0.1, -7, 1_i64 << 53, 1e300, {"": []}]));
        let back =
            |value: &dyn Fn() -> Result<Value, ValueError>| from_value(value().expect("JSON"));
        assert_eq!(back(&|| to_value(&Shape::Unit)), json!("Unit"));
        assert_eq!(back(&|| to_value(&Shape::One(1))), json!({"One": 1}));
        assert_eq!(back(&|| to_value(&Shape::Two(1, true))), json!({"Two": [1, true]}));
        assert_eq!(
            back(&|| to_value(&Shape::Named { a: Some('ü') })),
            json!({"Named": {"a": "ü"}})
        );
        assert_eq!(back(&|| to_value(&HashMap::from([(7, true)]))), json!({"7": true}));
        assert_eq!(back(&|| to_value(&2.0)), json!(2));
        assert_eq!(back(&|| number("1.5e3")), json!(1500));
    }

    /// What JSON cannot hold exactly is refused.
    #[test]
    fn values_that_would_change_are_refused() {
        let mut deep = json!("x");
        for _ in 0..40 {
            deep = json!([deep]);
        }
        assert!(to_value(&deep).is_err());
        assert!(to_value(&f64::NAN).is_err());
        assert!(to_value(&[f32::INFINITY]).is_err());
        assert!(to_value(&((1_i64 << 53) + 1)).is_err());
        assert!(to_value(&-((1_i64 << 53) + 1)).is_err());
        assert!(to_value(&u128::MAX).is_err());
        assert!(to_value(&json!({"n": u64::MAX})).is_err());
        assert!(number("9007199254740993").is_err());
        assert!(number("123456789012345678901234567890123456789012").is_err());
        assert!(to_value(&HashMap::from([(Some(1), 1), (None, 2)])).is_err());
        assert!(to_struct(&json!([])).is_err());
    }
}
