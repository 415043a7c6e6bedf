//! `grpc.health.v1.Health`: reports if the node, or one of its services, can be called.

use peat_ipc::prost::encoding::{WireType, encode_key, encode_varint, string};
use peat_ipc::{CallError, Code};

/// Services that can be asked about; the empty name is the node.
const SERVICES: [&str; 4] = ["", "peat.sidecar.v1.PeatSidecar", "peat.agent.v1.AgentLink", "grpc.health.v1.Health"];

/// Serving status (grpc/doc/health-checking.md).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::api) enum Serving {
    Yes = 1,
    No = 2,
    /// The service does not exist.
    Unknown = 3,
}

/// Parses the name of the service from an encoded request.
///
/// # Errors
/// INVALID_ARGUMENT: the request is malformed; NOT_FOUND: the service does not exist.
pub(in crate::api) fn service(request: &[u8]) -> Result<String, CallError> {
    let name = first_text(request, 1).map_err(|why| CallError::new(Code::InvalidArgument, why))?;
    if SERVICES.contains(&name.as_str()) {
        Ok(name)
    } else {
        Err(CallError::new(Code::NotFound, format!("there is no service '{name}'")))
    }
}

/// Encodes a response.
pub(in crate::api) fn response(serving: Serving) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(1, WireType::Varint, &mut out);
    encode_varint(serving as u64, &mut out);
    out
}

/// Parses the string in field `number` of a message; other fields are skipped.
pub(super) fn first_text(mut bytes: &[u8], number: u32) -> Result<String, String> {
    use peat_ipc::prost::encoding::{DecodeContext, decode_key, skip_field};
    let mut text = String::new();
    while !bytes.is_empty() {
        let (tag, wire) = decode_key(&mut bytes).map_err(|error| error.to_string())?;
        let read = if tag == number {
            string::merge(wire, &mut text, &mut bytes, DecodeContext::default())
        } else {
            skip_field(wire, tag, &mut bytes, DecodeContext::default())
        };
        read.map_err(|error| error.to_string())?;
    }
    Ok(text)
}
