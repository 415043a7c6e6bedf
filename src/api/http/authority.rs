//! Rewrites HTTP/2 input that common clients send and the `h2` crate rejects.
//!
//! gRPC clients send a unix socket's path as the request's `:authority`, percent-encoded or not, Huffman-coded or not. A path is
//! not a valid authority, and the library resets such a stream. Characters that a host name cannot contain are therefore replaced
//! by hyphens. The length of the decoded name stays the same, and with it the sizes that header compression counts. Only complete
//! HEADERS frames are examined. Empty DATA frames are dropped: the library ends a connection after a hundred of them, and they
//! have no meaning. Everything else passes unchanged.

use std::ops::Range;

use super::{PREFACE_2, huffman};

/// Size of a frame header, in bytes.
pub(super) const FRAME_HEAD: usize = 9;
/// Default maximum payload of a frame; for larger ones the library reports an error.
const FRAME_BYTES: usize = 16 << 10;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Index of `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// A filter on the input of the library.
#[derive(Debug)]
pub(super) struct AuthorityRewriter {
    /// Number of bytes to pass on unchanged.
    passing: usize,
    /// Start of a frame that is not complete.
    held: Vec<u8>,
}

impl AuthorityRewriter {
    pub(super) fn new() -> AuthorityRewriter {
        AuthorityRewriter { passing: PREFACE_2.len(), held: Vec::new() }
    }

    pub(super) fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let count = self.passing.min(bytes.len());
            out.extend_from_slice(&bytes[..count]);
            self.passing -= count;
            bytes = self.hold(&bytes[count..], out);
        }
    }

    /// Takes the bytes that belong to the held frame; returns the rest.
    fn hold<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        // HEADERS frames are held whole; of any other frame the header suffices.
        let wanted = match self.held.as_slice() {
            [a, b, c, HEADERS, ..] if self.held.len() >= FRAME_HEAD => FRAME_HEAD + length([*a, *b, *c]),
            _ => FRAME_HEAD,
        };
        let count = (wanted - self.held.len()).min(bytes.len());
        self.held.extend_from_slice(&bytes[..count]);
        if let [a, b, c, kind, flags, ..] = *self.held.as_slice()
            && self.held.len() >= FRAME_HEAD
        {
            let length = length([a, b, c]);
            if kind == HEADERS && length <= FRAME_BYTES {
                if self.held.len() < FRAME_HEAD + length {
                    return &bytes[count..];
                }
                // A header block that cannot be parsed is left for the library to reject.
                let _ = mend(&mut self.held, flags);
            } else if kind == DATA && length == 0 && flags & END_STREAM == 0 {
                self.held.clear();
            } else {
                self.passing = length;
            }
            out.append(&mut self.held);
        }
        &bytes[count..]
    }
}

fn length([a, b, c]: [u8; 3]) -> usize {
    usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)
}

/// Replaces an invalid authority in a HEADERS frame.
fn mend(frame: &mut Vec<u8>, flags: u8) -> Option<()> {
    let (place, name) = authority(frame.get(FRAME_HEAD..)?, flags)?;
    if http::uri::Authority::try_from(name.as_slice()).is_ok() {
        return Some(());
    }
    let is_letter = |letter: &u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'.' | b'_' | b'~');
    let name = name.iter().map(|letter| if is_letter(letter) { *letter } else { b'-' });
    // The replacement is a plain literal, which may be longer than the Huffman-coded original.
    let mut string = string_head(name.len());
    string.extend(name);
    let length = frame.len() - FRAME_HEAD - place.len() + string.len();
    if length > FRAME_BYTES {
        return None;
    }
    frame.splice(FRAME_HEAD + place.start..FRAME_HEAD + place.end, string);
    let [.., a, b, c] = length.to_be_bytes();
    frame[..3].copy_from_slice(&[a, b, c]);
    Some(())
}

/// Finds the authority in the payload of a HEADERS frame: its range, including the length prefix, and its decoded text.
fn authority(payload: &[u8], flags: u8) -> Option<(Range<usize>, Vec<u8>)> {
    let padding = if flags & PADDED == 0 { None } else { Some(usize::from(*payload.first()?)) };
    let mut at = usize::from(padding.is_some()) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = payload.len().checked_sub(padding.unwrap_or(0))?;
    while at < end {
        let first = payload[at];
        // Representations by their leading bits (RFC 7541, section 6): indexed, literal with indexing, table size update, literal
        // without indexing.
        let (prefix, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let index = integer(payload, &mut at, prefix)?;
        if !literal {
            continue;
        }
        let mut found = index == AUTHORITY;
        if index == 0 {
            let (name, coded) = string(payload, &mut at)?;
            found = text(payload.get(name)?, coded)?.as_slice() == b":authority";
        }
        let start = at;
        let (value, coded) = string(payload, &mut at)?;
        if found {
            return Some((start..at, text(payload.get(value)?, coded)?));
        }
    }
    None
}

fn text(bytes: &[u8], coded: bool) -> Option<Vec<u8>> {
    if coded { huffman::decode(bytes) } else { Some(bytes.to_vec()) }
}

/// Returns the length prefix of a plain string literal (RFC 7541, section 5.2).
fn string_head(length: usize) -> Vec<u8> {
    const MOST: usize = 0x7f;
    let Some(mut rest) = length.checked_sub(MOST) else { return vec![length.to_le_bytes()[0]] };
    let mut head = vec![0x7f];
    while rest >= 0x80 {
        head.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    head.push(rest.to_le_bytes()[0]);
    head
}

/// Decodes an integer with a prefix of `prefix` bits (RFC 7541, section 5.1).
fn integer(bytes: &[u8], at: &mut usize, prefix: u32) -> Option<usize> {
    let mask = (1 << prefix) - 1;
    let mut value = usize::from(*bytes.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let byte = usize::from(*bytes.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Decodes the length of a string literal; returns its range, and true if it is Huffman-coded (RFC 7541, section 5.2).
fn string(bytes: &[u8], at: &mut usize) -> Option<(Range<usize>, bool)> {
    let coded = bytes.get(*at)? & 0x80 != 0;
    let length = integer(bytes, at, 7)?;
    let start = *at;
    *at = start.checked_add(length)?;
    (*at <= bytes.len()).then_some((start..*at, coded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(flags: u8, block: &[u8]) -> Vec<u8> {
        let length = u8::try_from(block.len()).expect("short");
        [&[0, 0, length, HEADERS, flags, 0, 0, 0, 1], block].concat()
    }

    fn passed(bytes: &[u8], step: usize) -> Vec<u8> {
        let (mut mender, mut out) = (AuthorityRewriter::new(), Vec::new());
        bytes.chunks(step).for_each(|piece| mender.pass(piece, &mut out));
        out
    }

    #[test]
    fn a_path_becomes_a_name_of_the_same_length_and_nothing_else_changes() {
        // POST, http, a path with characters that an authority must not have, and the authority; then bytes of another frame.
        let block = |name: &[u8]| [b"\x83\x86\x44\x04/%2F\x41\x09", name, b"\x40\x01x\x01/"].concat();
        let data = [0, 0, 3, 0, 1, 0, 0, 0, 1, b'%', b'/', 1];
        let stream = |name| [PREFACE_2, &headers(4, &block(name)), &data, &headers(5, &block(name))].concat();
        for step in 1..60 {
            assert_eq!(passed(&stream(b"%2Ftmp/s%"), step), stream(b"-2Ftmp-s-"), "{step}");
        }
    }

    #[test]
    fn the_name_may_be_written_out() {
        // As gRPC C-core 48 sends it.
        let block = |name: &[u8]| [b"@\x05:path\x04/a/B@\n:authority\x10", name, b"\x83\x86"].concat();
        let stream = |name| [PREFACE_2, &headers(4, &block(name))].concat();
        assert_eq!(passed(&stream(b"tmp%2Fh2cap.sock"), 11), stream(b"tmp-2Fh2cap.sock"));
    }

    #[test]
    fn padding_and_priority_are_stepped_over() {
        let padded = |name: &[u8]| headers(0x2c, &[b"\x02\0\0\0\0\0\x41\x02", name, b"\0\0"].concat());
        let stream = |name| [PREFACE_2, &padded(name)].concat();
        assert_eq!(passed(&stream(b"/a"), 7), stream(b"-a"));
    }

    #[test]
    fn a_name_in_huffmans_code_is_mended_too() {
        use crate::api::http::huffman::tests::encode;
        let coded =
            |text: &[u8]| [&[0x80 | u8::try_from(encode(text).len()).expect("short")], &encode(text)[..]].concat();
        let plain = |text: &[u8]| [&[u8::try_from(text.len()).expect("short")], text].concat();
        for (path, name) in [
            (&b"/run/peat-node/peat-node.sock"[..], &b"-run-peat-node-peat-node.sock"[..]),
            (b"%2Frun%2Fx.sock", b"-2Frun-2Fx.sock"),
            (b"unix:///run/a b.sock", b"unix----run-a-b.sock"),
            ("/tmp/k\u{e9}.sock".as_bytes(), b"-tmp-k--.sock"),
            (b"a:1:2", b"a-1-2"),
        ] {
            let block = |name: Vec<u8>| [&b"\x83\x86\x44\x04/%2F\x41"[..], &name, b"\x40\x01x\x01/"].concat();
            let written =
                |name: Vec<u8>| [&b"\x83\x40"[..], &coded(b":authority"), &name, b"\x86\x44\x04/%2F"].concat();
            for step in [1, 7, 200] {
                let stream = |block: Vec<u8>| [PREFACE_2, &headers(4, &block)].concat();
                assert_eq!(passed(&stream(block(coded(path))), step), stream(block(plain(name))));
                assert_eq!(passed(&stream(written(coded(path))), step), stream(written(plain(name))));
            }
        }
    }

    #[test]
    fn a_host_passes_as_it_came() {
        use crate::api::http::huffman::tests::encode;
        for host in [&b"localhost"[..], b"node.example:50051", b"[fd00::1]:443", b"10.0.0.1:1", b"peat-node_1.local"] {
            let coded = encode(host);
            let block = [&[0x83, 0x86, 0x41, 0x80 | u8::try_from(coded.len()).expect("short")], &coded[..]].concat();
            let stream = [PREFACE_2, &headers(4, &block)].concat();
            assert_eq!(passed(&stream, 5), stream);
        }
    }

    #[test]
    fn a_long_path_keeps_its_length_and_a_frame_that_would_grow_too_large_stays_as_it_is() {
        use crate::api::http::huffman::tests::encode;
        let frame = |rest: usize, coded: bool| {
            let path = vec![b'/'; 300];
            let name = if coded { encode(&path) } else { vec![b'-'; 300] };
            let mut block = vec![0x41];
            let mut head = string_head(name.len());
            if coded {
                head[0] |= 0x80;
            }
            block.extend(head);
            block.extend(name);
            block.extend(std::iter::repeat_n(0x82, rest));
            let [.., a, b, c] = block.len().to_be_bytes();
            [PREFACE_2, &[a, b, c, HEADERS, 4, 0, 0, 0, 1], &block].concat()
        };
        assert_eq!(passed(&frame(10, true), 64), frame(10, false));
        assert_eq!(passed(&frame(FRAME_BYTES - 240, true), 64), frame(FRAME_BYTES - 240, true));
        for length in [0, 126, 127, 128, 254, 255, 300, 16_000] {
            let head = string_head(length);
            assert_eq!(integer(&head, &mut 0, 7), Some(length));
        }
    }

    #[test]
    fn frames_without_data_are_left_out_but_for_the_end_of_a_stream() {
        let data = |flags: u8| [0, 0, 0, DATA, flags, 0, 0, 0, 1];
        let stream = [PREFACE_2, &data(0), &data(END_STREAM), &data(0), &data(0)].concat();
        assert_eq!(passed(&stream, 4), [PREFACE_2, &data(END_STREAM)].concat());
    }

    #[test]
    fn what_cannot_be_read_passes_as_it_is() {
        for block in [&b"\x41\xff\xff\xff\xff\xff/"[..], b"\x41\x7f/", b"\x41", b"\x41\x82/%", b"\x08\x05\x01\xff\xff"]
        {
            for flags in [4, 0x2c] {
                let stream = [PREFACE_2, &headers(flags, block)].concat();
                assert_eq!(passed(&stream, 3), stream);
            }
        }
    }
}
