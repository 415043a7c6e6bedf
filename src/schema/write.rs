//! Conversion of protobuf to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use peat_ipc::prost::encoding::decode_varint;

use super::{Field, FieldKind, Index, text, values};

/// Treatment of fields with default values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// They are left out, as in protobuf's libraries.
    Plain,
    /// They are written, unless they are `optional`, for scripts.
    Full,
}

/// Value of a field in its wire format.
#[derive(Clone, Copy)]
pub(super) enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Returns the next field; `None` at the end, and for malformed bytes.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Option<(u64, Wire<'a>)> {
    let key = decode_varint(bytes).ok()?;
    let value = match key & 7 {
        0 => Wire::Number(decode_varint(bytes).ok()?),
        1 => {
            let (head, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            Wire::Number(u64::from_le_bytes(*head))
        }
        2 => {
            let length = usize::try_from(decode_varint(bytes).ok()?).ok()?;
            let (head, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Wire::Bytes(head)
        }
        5 => {
            let (head, rest) = bytes.split_first_chunk::<4>()?;
            *bytes = rest;
            Wire::Number(u32::from_le_bytes(*head).into())
        }
        _ => return None,
    };
    Some((key >> 3, value))
}

pub(super) fn message(index: Index, bytes: &[u8], style: Style, out: &mut Vec<u8>) {
    let mut rest = bytes;
    let mut held = next(&mut rest);
    let mut separator = b'{';
    for field in index.fields() {
        let number = u64::from(field.number);
        // Fields come in the order of their numbers: skip those that the tables do not have.
        while held.as_ref().is_some_and(|(held, _)| *held < number) {
            held = next(&mut rest);
        }
        let present = held.as_ref().is_some_and(|(held, _)| *held == number);
        let single_message = matches!(field.kind, FieldKind::Message(_)) && !field.repeated;
        if !present && (style == Style::Plain || field.optional || single_message) {
            continue;
        }
        out.push(separator);
        separator = b',';
        out.push(b'"');
        out.extend(field.json_name());
        out.extend_from_slice(b"\":");
        let mut take = || {
            let (_, value) = held.take_if(|(held, _)| *held == number)?;
            held = next(&mut rest);
            Some(value)
        };
        match (field.kind, field.repeated) {
            (FieldKind::Map(entry), _) => list(b"{}", take, |value, out| map_entry(entry, value, style, out), out),
            (FieldKind::Enum(_), true) => {
                // A repeated enum is packed in one field, or in one field per value; decoders must accept both.
                let mut packed: &[u8] = &[];
                let unpack = || loop {
                    if let Ok(number) = decode_varint(&mut packed) {
                        return Some(Wire::Number(number));
                    }
                    match take()? {
                        Wire::Bytes(bytes) => packed = bytes,
                        number => return Some(number),
                    }
                };
                list(b"[]", unpack, |value, out| put(field, Some(value), style, out), out);
            }
            (_, true) => list(b"[]", take, |value, out| put(field, Some(value), style, out), out),
            (_, false) => put(field, take(), style, out),
        }
    }
    if separator == b'{' {
        out.push(b'{');
    }
    out.push(b'}');
}

fn list<'a>(
    brackets: &[u8; 2],
    mut take: impl FnMut() -> Option<Wire<'a>>,
    mut put: impl FnMut(Wire<'a>, &mut Vec<u8>),
    out: &mut Vec<u8>,
) {
    out.push(brackets[0]);
    let mut first = true;
    while let Some(value) = take() {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        put(value, out);
    }
    out.push(brackets[1]);
}

/// Writes an entry of a map. Keys are always strings here.
fn map_entry(entry: Index, value: Wire<'_>, style: Style, out: &mut Vec<u8>) {
    let Wire::Bytes(mut bytes) = value else { return };
    let (mut key, mut held) = (None, None);
    while let Some((number, value)) = next(&mut bytes) {
        *(if number == 1 { &mut key } else { &mut held }) = Some(value);
    }
    let [of_key, of_value] = entry.fields() else { return };
    put(of_key, key, style, out);
    out.push(b':');
    put(of_value, held, style, out);
}

/// Writes a value, or the default if there is none.
fn put(field: &Field, value: Option<Wire<'_>>, style: Style, out: &mut Vec<u8>) {
    let (number, bytes) = match value {
        Some(Wire::Number(number)) => (number, &b""[..]),
        Some(Wire::Bytes(bytes)) => (0, bytes),
        None => (0, &b""[..]),
    };
    match field.kind {
        FieldKind::Double => double(f64::from_bits(number), out),
        FieldKind::U32 => append(out, &number.to_string()),
        FieldKind::U64 => quoted(out, &number.to_string()),
        FieldKind::I64 => quoted(out, &number.cast_signed().to_string()),
        FieldKind::Bool => append(out, if number == 0 { "false" } else { "true" }),
        FieldKind::Text => string(&String::from_utf8_lossy(bytes), out),
        FieldKind::Bytes => quoted(out, &base64(bytes)),
        FieldKind::Enum(of) => {
            // A negative number is ten bytes on the wire, of which the low 32 bits count.
            let number = ((number & 0xffff_ffff) as u32).cast_signed();
            match values(of).iter().find(|value| value.number == number) {
                Some(value) => quoted(out, text(value.name)),
                None => append(out, &number.to_string()),
            }
        }
        FieldKind::Message(index) | FieldKind::Map(index) => message(index, bytes, style, out),
    }
}

/// Encodes as base64url without padding, the form of versions and run ids. Every parser of proto3 JSON accepts it.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn append(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    append(out, text);
    out.push(b'"');
}

fn string(text: &str, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = serde_json::to_writer(out, text);
}

fn double(number: f64, out: &mut Vec<u8>) {
    match number {
        _ if number.is_nan() => quoted(out, "NaN"),
        f64::INFINITY => quoted(out, "Infinity"),
        f64::NEG_INFINITY => quoted(out, "-Infinity"),
        number if number.fract() == 0.0 && number.abs() < 1e15 => append(out, &format!("{number:.0}")),
        number => _ = serde_json::to_writer(out, &number),
    }
}
