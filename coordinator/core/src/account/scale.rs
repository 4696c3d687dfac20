//! Weighs plain data: the bytes of its texts, and as many for each value as the name of a field has. That is what a row
//! has as JSON, near enough, and takes a tenth of the time to find out.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

/// A value beside its text: the name of its field, and what stands around it.
const VALUE_BYTES: usize = 16;

/// What a value weighs.
pub(super) fn weigh<T: Serialize + ?Sized>(value: &T) -> usize {
    let mut scale = Scale(0);
    match value.serialize(&mut scale) {
        Ok(()) => scale.0,
        // Nobody makes such a value; and if, it is too heavy.
        Err(Unweighable) => usize::MAX / 4,
    }
}

#[derive(Debug)]
struct Unweighable;

impl fmt::Display for Unweighable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it cannot be weighed")
    }
}

impl std::error::Error for Unweighable {}

impl ser::Error for Unweighable {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Scale(usize);

impl Scale {
    fn put(&mut self, bytes: usize) -> Result<(), Unweighable> {
        self.0 += VALUE_BYTES + bytes;
        Ok(())
    }
}

macro_rules! plain {
    ($($name:ident: $type:ty,)*) => {
        $(fn $name(self, _: $type) -> Result<(), Unweighable> { self.put(0) })*
    };
}

impl Serializer for &mut Scale {
    type Ok = ();
    type Error = Unweighable;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    plain! {
        serialize_bool: bool, serialize_char: char, serialize_f32: f32, serialize_f64: f64,
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64,
        serialize_unit_struct: &'static str,
    }

    fn serialize_str(self, text: &str) -> Result<(), Unweighable> {
        self.put(text.len())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Unweighable> {
        self.put(bytes.len())
    }

    fn serialize_none(self) -> Result<(), Unweighable> {
        self.put(0)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Unweighable> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), Unweighable> {
        self.put(0)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Unweighable> {
        self.put(variant.len())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), Unweighable> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Unweighable> {
        self.put(variant.len())?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Unweighable> {
        self.put(0).map(|()| self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Unweighable> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Unweighable> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, Unweighable> {
        self.put(variant.len()).map(|()| self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Unweighable> {
        self.put(0).map(|()| self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Unweighable> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Self, Unweighable> {
        self.put(variant.len()).map(|()| self)
    }
}

macro_rules! parts {
    ($($trait:ident, $name:ident;)*) => {
        $(impl ser::$trait for &mut Scale {
            type Ok = ();
            type Error = Unweighable;

            fn $name<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unweighable> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Unweighable> {
                Ok(())
            }
        })*
    };
}

parts! {
    SerializeSeq, serialize_element;
    SerializeTuple, serialize_element;
    SerializeTupleStruct, serialize_field;
    SerializeTupleVariant, serialize_field;
}

macro_rules! named_parts {
    ($($trait:ident;)*) => {
        $(impl ser::$trait for &mut Scale {
            type Ok = ();
            type Error = Unweighable;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Unweighable> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), Unweighable> {
                Ok(())
            }
        })*
    };
}

named_parts! { SerializeStruct; SerializeStructVariant; }

impl ser::SerializeMap for &mut Scale {
    type Ok = ();
    type Error = Unweighable;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Unweighable> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Unweighable> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), Unweighable> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_weighs_its_texts_and_about_what_it_has_as_json() {
        use windlass_pipeline::graph::{Command, NodeKind};
        let command = Command {
            command: "x".repeat(5_000),
            env: (0..50).map(|n| (format!("NAME_{n}"), "value".repeat(n))).collect(),
            ..Command::default()
        };
        let kind = NodeKind::Command(Box::new(command));
        let (weight, json) = (weigh(&kind), serde_json::to_string(&kind).unwrap().len());
        assert!(weight > 5_000 + 5 * 49 * 25, "{weight}");
        assert!(weight < json * 5 / 4 && json < weight * 5 / 4, "{weight} for {json}");
        assert_eq!(weigh(&serde_json::json!({ "a": ["b", null, 1.5, true] })), 7 * 16 + 2);
    }
}
