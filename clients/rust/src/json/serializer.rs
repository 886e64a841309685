//! The serializer of any value into a message.

use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::{Serialize, ser};

use super::{EXACT_INTEGERS, to_value};
use crate::error::ValueError;

/// Maximum of the objects and lists in each other. The service accepts fewer.
const MAX_LEVELS: usize = 30;
/// The name under which `serde_json` passes numbers of arbitrary precision.
const NUMBER_TOKEN: &str = "$serde_json::private::Number";

pub(super) fn problem(text: impl Into<String>) -> ValueError {
    ValueError(text.into())
}

fn kind(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(value: impl Into<String>) -> Value {
    kind(Kind::StringValue(value.into()))
}

/// Return the integer, if a double can hold it.
#[allow(clippy::cast_precision_loss, reason = "it is exact below the bound")]
fn integer(value: i128) -> Result<Value, ValueError> {
    if value.unsigned_abs() > EXACT_INTEGERS.unsigned_abs().into() {
        return Err(problem("an integer above 2**53 would lose digits in JSON: send it as text"));
    }
    Ok(kind(Kind::NumberValue(value as f64)))
}

/// Return the number of arbitrary precision that the text stands for.
pub(super) fn number(text: &str) -> Result<Value, ValueError> {
    if let Ok(value) = text.parse::<i128>() {
        return integer(value);
    }
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && text.contains(['.', 'e', 'E']) => {
            Ok(kind(Kind::NumberValue(value)))
        }
        _ => Err(problem(format!("{text:.40} would lose digits in JSON: send it as text"))),
    }
}

impl ser::Error for ValueError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        problem(format!("the value is not JSON: {message}"))
    }
}

/// A serializer into a message, so many levels below the top.
#[derive(Clone, Copy, Default)]
pub(super) struct ToValue {
    level: usize,
}

impl ToValue {
    /// Return the serializer of the members.
    fn deeper(self) -> Result<Self, ValueError> {
        if self.level >= MAX_LEVELS {
            return Err(problem("the value is nested too deep, or contains itself"));
        }
        Ok(Self { level: self.level + 1 })
    }

    fn list(self, variant: Option<&'static str>) -> Result<List, ValueError> {
        let items = if variant.is_some() { self.deeper()? } else { self };
        Ok(List { items: items.deeper()?, values: Vec::new(), variant })
    }

    fn object(self, variant: Option<&'static str>) -> Result<Object, ValueError> {
        let members = if variant.is_some() { self.deeper()? } else { self };
        Ok(Object { members: members.deeper()?, fields: Struct::default(), name: None, variant })
    }
}

/// Return the value as the only member of an object, which is named after its variant.
fn tagged(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        None => value,
        Some(name) => kind(Kind::StructValue(Struct { fields: [(name.to_owned(), value)].into() })),
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),*) => {
        $(fn $method(self, value: $type) -> Result<Value, ValueError> { integer(value.into()) })*
    };
}

impl ser::Serializer for ToValue {
    type Ok = Value;
    type Error = ValueError;
    type SerializeSeq = List;
    type SerializeTuple = List;
    type SerializeTupleStruct = List;
    type SerializeTupleVariant = List;
    type SerializeMap = Object;
    type SerializeStruct = Object;
    type SerializeStructVariant = Object;

    integers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64
    }

    fn serialize_u128(self, value: u128) -> Result<Value, ValueError> {
        integer(value.try_into().unwrap_or(i128::MAX))
    }

    fn serialize_bool(self, value: bool) -> Result<Value, ValueError> {
        Ok(kind(Kind::BoolValue(value)))
    }

    fn serialize_f32(self, value: f32) -> Result<Value, ValueError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Value, ValueError> {
        if !value.is_finite() {
            return Err(problem(format!("{value} has no place in JSON")));
        }
        Ok(kind(Kind::NumberValue(value)))
    }

    fn serialize_char(self, value: char) -> Result<Value, ValueError> {
        Ok(text(value))
    }

    fn serialize_str(self, value: &str) -> Result<Value, ValueError> {
        Ok(text(value))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, ValueError> {
        value.serialize(self)
    }

    fn serialize_none(self) -> Result<Value, ValueError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, ValueError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Value, ValueError> {
        Ok(kind(Kind::NullValue(0)))
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, ValueError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
    ) -> Result<Value, ValueError> {
        Ok(text(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, ValueError> {
        Ok(tagged(Some(variant), value.serialize(self.deeper()?)?))
    }

    fn serialize_seq(self, _length: Option<usize>) -> Result<List, ValueError> {
        self.list(None)
    }

    fn serialize_tuple(self, _length: usize) -> Result<List, ValueError> {
        self.list(None)
    }

    fn serialize_tuple_struct(
        self,
        _name: &'static str,
        _length: usize,
    ) -> Result<List, ValueError> {
        self.list(None)
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<List, ValueError> {
        self.list(Some(variant))
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Object, ValueError> {
        self.object(None)
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Object, ValueError> {
        self.object(None)
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Object, ValueError> {
        self.object(Some(variant))
    }
}

/// A list that is being serialized.
pub(super) struct List {
    items: ToValue,
    values: Vec<Value>,
    variant: Option<&'static str>,
}

impl List {
    fn push<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        self.values.push(value.serialize(self.items)?);
        Ok(())
    }

    fn finish(self) -> Value {
        tagged(self.variant, kind(Kind::ListValue(ListValue { values: self.values })))
    }
}

macro_rules! lists {
    ($($trait:ident: $method:ident),*) => {
        $(impl ser::$trait for List {
            type Ok = Value;
            type Error = ValueError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
                self.push(value)
            }

            fn end(self) -> Result<Value, ValueError> {
                Ok(self.finish())
            }
        })*
    };
}

lists! {
    SerializeSeq: serialize_element, SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field, SerializeTupleVariant: serialize_field
}

/// An object that is being serialized.
pub(super) struct Object {
    members: ToValue,
    fields: Struct,
    name: Option<String>,
    variant: Option<&'static str>,
}

impl Object {
    fn insert<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<(), ValueError> {
        self.fields.fields.insert(name, value.serialize(self.members)?);
        Ok(())
    }

    fn finish(self) -> Result<Value, ValueError> {
        if let Some(Value { kind: Some(Kind::StringValue(text)) }) =
            self.fields.fields.get(NUMBER_TOKEN)
        {
            return number(text);
        }
        Ok(tagged(self.variant, kind(Kind::StructValue(self.fields))))
    }
}

impl ser::SerializeMap for Object {
    type Ok = Value;
    type Error = ValueError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ValueError> {
        self.name = Some(match to_value(key)?.kind {
            Some(Kind::StringValue(name)) => name,
            Some(Kind::NumberValue(number)) => number.to_string(),
            Some(Kind::BoolValue(value)) => value.to_string(),
            _ => return Err(problem("the name of a member is not a text")),
        });
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ValueError> {
        let name = self.name.take().ok_or_else(|| problem("a member has no name"))?;
        self.insert(name, value)
    }

    fn end(self) -> Result<Value, ValueError> {
        self.finish()
    }
}

macro_rules! structs {
    ($($trait:ident),*) => {
        $(impl ser::$trait for Object {
            type Ok = Value;
            type Error = ValueError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                name: &'static str,
                value: &T,
            ) -> Result<(), ValueError> {
                self.insert(name.to_owned(), value)
            }

            fn end(self) -> Result<Value, ValueError> {
                self.finish()
            }
        })*
    };
}

structs! { SerializeStruct, SerializeStructVariant }
