//! Messages within a body: each has a head of five bytes (flags, length) and may be compressed; gRPC-Web text adds base64.

use std::io::{Read as _, Write as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use peat_ipc::{CallError, Code};

use crate::limits::HTTP_BODY_BYTES;

const HEAD: usize = 5;
/// Flag of a compressed message.
const COMPRESSED: u8 = 1;

/// Encodes a message with its head.
pub(super) fn wrap(flags: u8, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + message.len());
    out.push(flags);
    out.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(message);
    out
}

/// Decodes the message at the start of `bytes` and returns it with the bytes it took; `None` while it is incomplete.
///
/// # Errors
/// The message is too long, not valid gzip, compressed without an announcement, or has unknown flags.
pub(super) fn split(bytes: &[u8], compressed: bool) -> Result<Option<(Vec<u8>, usize)>, CallError> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [flags, length @ ..] = *head;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > HTTP_BODY_BYTES {
        return Err(too_long());
    }
    let Some(message) = rest.get(..length) else { return Ok(None) };
    let message = match flags {
        0 => message.to_vec(),
        COMPRESSED if compressed => inflate(message)?,
        COMPRESSED => return Err(wrong("a message is compressed, and no header says how")),
        _ => return Err(wrong("a message has flags that are not known here")),
    };
    Ok(Some((message, HEAD + length)))
}

pub(super) fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// Decompresses gzip, up to the limit of a body.
pub(super) fn inflate(bytes: &[u8]) -> Result<Vec<u8>, CallError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    let read = GzDecoder::new(bytes).take(HTTP_BODY_BYTES as u64 + 1).read_to_end(&mut out);
    match read {
        Ok(..=HTTP_BODY_BYTES) => Ok(out),
        Ok(_) => Err(too_long()),
        Err(cause) => Err(wrong(&format!("a message is not gzip: {cause}"))),
    }
}

pub(super) fn to_text(bytes: &[u8]) -> Vec<u8> {
    STANDARD.encode(bytes).into_bytes()
}

/// Decodes base64 that is a sequence of separately padded pieces.
pub(super) fn from_text(text: &[u8]) -> Result<Vec<u8>, CallError> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.chunks(4) {
        let decoded = STANDARD.decode(four).map_err(|_| wrong("a body is not base64"))?;
        bytes.extend_from_slice(&decoded);
    }
    Ok(bytes)
}

fn too_long() -> CallError {
    CallError::new(Code::ResourceExhausted, format!("a message is over {HTTP_BODY_BYTES} bytes, which is the limit"))
}

fn wrong(why: &str) -> CallError {
    CallError::new(Code::InvalidArgument, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_envelope() {
        let long = vec![7; 3000];
        assert_eq!(inflate(&deflate(&long)).expect("gzip"), long);
        let packed = wrap(COMPRESSED, &deflate(&long));
        assert_eq!(split(&packed, true).expect("whole"), Some((long, packed.len())));
        assert_eq!(split(&packed[..packed.len() - 1], true).expect("incomplete"), None);
        split(&packed, false).expect_err("not announced");
        split(&[8, 0, 0, 0, 0], true).expect_err("flags");
        split(&[0, 255, 0, 0, 0], true).expect_err("long");
    }

    #[test]
    fn a_small_message_does_not_become_a_large_one() {
        let bomb = deflate(&vec![0; HTTP_BODY_BYTES + 1]);
        assert!(bomb.len() < 64 << 10);
        assert_eq!(inflate(&bomb).expect_err("large").code, Code::ResourceExhausted);
    }

    #[test]
    fn pieces_of_base64_follow_each_other() {
        assert_eq!(from_text(b"YQ==YmM=").expect("base64"), b"abc");
        from_text(b"YQ==Y").expect_err("cut");
    }
}
