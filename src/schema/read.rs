//! Conversion of JSON to protobuf in one pass: each value is encoded as soon as it is read. Unknown fields are skipped.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use peat_ipc::prost::encoding::{WireType, encode_key, encode_varint};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Field, FieldKind, Index, text, values};

pub(super) fn message(index: Index, json: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(json.len());
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = Whole { index, out: &mut out }.deserialize(&mut reader).and_then(|()| reader.end());
    read.map(|()| out).map_err(|error| error.to_string())
}

/// Reader of a message.
struct Whole<'a> {
    index: Index,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(Name(self.index))? {
            match field {
                Some(field) => map.next_value_seed(Content { field, element: false, out: self.out })?,
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// Reader of a field's name, in either spelling.
struct Name(Index);

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let named = |field: &&Field| field.json_name().eq(name.bytes()) || field.name() == name;
        Ok(self.0.fields().iter().find(named))
    }
}

/// Reader of a field's value, or of one element of it.
struct Content<'a> {
    field: &'static Field,
    element: bool,
    out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Content<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Content<'_> {
    fn wrong<E: Error>(&self) -> E {
        E::custom(format!("{} {}", self.field.name(), self.expected()))
    }

    fn expected(&self) -> &'static str {
        match self.field.kind {
            FieldKind::Map(_) => "is an object",
            _ if self.field.repeated && !self.element => "is a list",
            FieldKind::Double => "is a number",
            FieldKind::U32 | FieldKind::U64 | FieldKind::I64 => "is an integer within its range",
            FieldKind::Bool => "is true or false",
            FieldKind::Text => "is a text",
            FieldKind::Bytes => "is a text in base64",
            FieldKind::Enum(_) => "is the name or the number of a value",
            FieldKind::Message(_) => "is an object",
        }
    }

    fn is_single<E: Error>(&self) -> Result<(), E> {
        if self.field.repeated && !self.element { Err(self.wrong()) } else { Ok(()) }
    }

    // Writing to memory does not fail; the result type is the visitor's.

    fn varint<E>(self, value: u64) -> Result<(), E> {
        encode_key(self.field.number.into(), WireType::Varint, self.out);
        encode_varint(value, self.out);
        Ok(())
    }

    fn bytes<E>(self, bytes: &[u8]) -> Result<(), E> {
        encode_key(self.field.number.into(), WireType::LengthDelimited, self.out);
        encode_varint(bytes.len() as u64, self.out);
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    fn double<E>(self, value: f64) -> Result<(), E> {
        encode_key(self.field.number.into(), WireType::SixtyFourBit, self.out);
        self.out.extend_from_slice(&value.to_bits().to_le_bytes());
        Ok(())
    }

    /// Writes an integer, in any spelling that JSON has for it.
    fn integer<E: Error>(self, value: i128) -> Result<(), E> {
        self.is_single()?;
        let fits = match self.field.kind {
            FieldKind::U32 => u32::try_from(value).ok().map(u64::from),
            FieldKind::U64 => u64::try_from(value).ok(),
            FieldKind::I64 => i64::try_from(value).ok().map(i64::cast_unsigned),
            FieldKind::Enum(_) => i32::try_from(value).ok().map(|number| i64::from(number).cast_unsigned()),
            _ => None,
        };
        match fits {
            Some(value) => self.varint(value),
            None => Err(self.wrong()),
        }
    }

    fn number<E: Error>(self, value: f64) -> Result<(), E> {
        match self.field.kind {
            FieldKind::Double => {
                self.is_single()?;
                self.double(value)
            }
            #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough")]
            _ if value.fract() == 0.0 && value.abs() < 1e20 => self.integer(value as i128),
            _ => Err(self.wrong()),
        }
    }

    fn text<E: Error>(self, value: &str) -> Result<(), E> {
        self.is_single()?;
        match self.field.kind {
            FieldKind::Text => self.bytes(value.as_bytes()),
            FieldKind::Bytes => match from_base64(value) {
                Some(bytes) => self.bytes(&bytes),
                None => Err(self.wrong()),
            },
            FieldKind::Enum(of) => match values(of).iter().find(|known| text(known.name) == value) {
                Some(known) => self.varint(i64::from(known.number).cast_unsigned()),
                None => Err(E::custom(format!("{} has no value '{value}'", self.field.name()))),
            },
            FieldKind::U32 | FieldKind::U64 | FieldKind::I64 if looks_numeric(value) => match value.parse() {
                Ok(integer) => self.integer(integer),
                Err(_) => self.number(value.parse().unwrap_or(f64::NAN)),
            },
            FieldKind::Double => match value {
                "NaN" => self.double(f64::NAN),
                "Infinity" => self.double(f64::INFINITY),
                "-Infinity" => self.double(f64::NEG_INFINITY),
                _ => match value.parse() {
                    Ok(number) if looks_numeric(value) => self.double(number),
                    _ => Err(self.wrong()),
                },
            },
            _ => Err(self.wrong()),
        }
    }
}

impl<'de> Visitor<'de> for Content<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "that {} {}", self.field.name(), self.expected())
    }

    /// Accepts null for an absent field, but not within a list.
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if self.element { Err(self.wrong()) } else { Ok(()) }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.is_single()?;
        match self.field.kind {
            FieldKind::Bool => self.varint(value.into()),
            _ => Err(self.wrong()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "as JSON's numbers are")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        if let FieldKind::Double = self.field.kind { self.number(value as f64) } else { self.integer(value.into()) }
    }

    #[expect(clippy::cast_precision_loss, reason = "as JSON's numbers are")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        if let FieldKind::Double = self.field.kind { self.number(value as f64) } else { self.integer(value.into()) }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.number(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.text(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if !self.field.repeated || self.element || matches!(self.field.kind, FieldKind::Map(_)) {
            return Err(self.wrong());
        }
        while list.next_element_seed(Content { field: self.field, element: true, out: self.out })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        match self.field.kind {
            FieldKind::Map(entry) => {
                let [of_key, of_value] = entry.fields() else { return Err(self.wrong()) };
                while let Some(key) = map.next_key::<String>()? {
                    let mut inner = Vec::new();
                    Content { field: of_key, element: true, out: &mut inner }.text::<A::Error>(&key)?;
                    map.next_value_seed(Content { field: of_value, element: true, out: &mut inner })?;
                    Content { field: self.field, element: true, out: &mut *self.out }.bytes::<A::Error>(&inner)?;
                }
                Ok(())
            }
            FieldKind::Message(index) => {
                self.is_single()?;
                let mut inner = Vec::new();
                Whole { index, out: &mut inner }.visit_map(map)?;
                self.bytes(&inner)
            }
            _ => Err(self.wrong()),
        }
    }
}

/// Returns true for a spelling that JSON allows. Rust's parser also accepts words such as `inf`, and a leading plus sign.
fn looks_numeric(value: &str) -> bool {
    value.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit())
}

/// Decodes base64 in either alphabet, with or without padding.
#[must_use]
pub fn from_base64(text: &str) -> Option<Vec<u8>> {
    let usual: String = text.trim_end_matches('=').replace('-', "+").replace('_', "/");
    STANDARD_NO_PAD.decode(usual).ok()
}
