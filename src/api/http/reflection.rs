//! `grpc.reflection.v1.ServerReflection` and its v1alpha name: the definitions of the services, for tools that have none.
//!
//! Both versions have the same encoding. The definitions are those the node was built from.

use peat_ipc::prost::encoding::{WireType, encode_key, encode_varint, key_len};

use super::health::first_text;

/// Package, file name, encoded definition, and the indexes of the files to return: imports first, then the file itself.
const FILES: [(&str, &str, &[u8], &[usize]); 3] = [
    (
        "peat.sidecar.v1",
        "peat/sidecar/v1/sidecar.proto",
        include_bytes!(concat!(env!("OUT_DIR"), "/sidecar.bin")),
        &[0],
    ),
    ("peat.agent.v1", "peat/agent/v1/agent.proto", include_bytes!(concat!(env!("OUT_DIR"), "/agent.bin")), &[1, 0]),
    ("grpc.health.v1", "grpc/health/v1/health.proto", include_bytes!(concat!(env!("OUT_DIR"), "/health.bin")), &[2]),
];

const SERVICES: [&str; 3] = ["peat.sidecar.v1.PeatSidecar", "peat.agent.v1.AgentLink", "grpc.health.v1.Health"];

/// Field numbers of a request.
const FILE_BY_NAME: u32 = 3;
const FILE_OF_SYMBOL: u32 = 4;
const LIST_SERVICES: u32 = 7;
/// Field numbers of a response.
const ORIGINAL: u32 = 2;
const FILE_RESPONSE: u32 = 4;
const LIST_RESPONSE: u32 = 6;
const ERROR: u32 = 7;

/// Answers one request.
pub(in crate::api) fn answer(request: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, ORIGINAL, request);
    let text = |field| first_text(request, field).ok().filter(|text| !text.is_empty());
    let found = if let Some(name) = text(FILE_BY_NAME) {
        FILES.iter().find(|(_, file, ..)| *file == name)
    } else if let Some(symbol) = text(FILE_OF_SYMBOL) {
        FILES.iter().find(|(package, ..)| symbol.strip_prefix(package).is_some_and(|rest| rest.starts_with('.')))
    } else {
        None
    };
    match found {
        Some((.., all)) => {
            let mut files = Vec::new();
            all.iter().for_each(|&index| put(&mut files, 1, FILES[index].2));
            put(&mut out, FILE_RESPONSE, &files);
        }
        None if first_text(request, LIST_SERVICES).is_ok() && has_field(request, LIST_SERVICES) => {
            let mut services = Vec::new();
            for service in SERVICES {
                let mut name = Vec::new();
                put(&mut name, 1, service.as_bytes());
                put(&mut services, 1, &name);
            }
            put(&mut out, LIST_RESPONSE, &services);
        }
        None => {
            let mut error = vec![8, 5];
            put(&mut error, 2, b"there is no such definition here");
            put(&mut out, ERROR, &error);
        }
    }
    out
}

/// Returns true if the field is present; in a request for the list, tools set it to an empty string or a star.
fn has_field(bytes: &[u8], number: u32) -> bool {
    use peat_ipc::prost::encoding::{DecodeContext, decode_key, skip_field};
    let mut rest = bytes;
    while let Ok((tag, wire)) = decode_key(&mut rest) {
        if tag == number {
            return true;
        }
        if skip_field(wire, tag, &mut rest, DecodeContext::default()).is_err() {
            return false;
        }
    }
    false
}

fn put(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    out.reserve(key_len(field) + bytes.len() + 5);
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
