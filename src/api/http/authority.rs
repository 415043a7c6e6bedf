//! Mends the one thing in HTTP/2 that clients on a unix socket commonly get wrong.
//!
//! gRPC's C library and others name the socket's path as the request's `:authority`, percent-encoded or as it is. A path is no
//! authority, and the h2 crate resets such a stream before anybody sees it. So the name's letters that no authority has
//! become hyphens on the way in. The length stays, and with it everything header compression counts; names in Huffman's
//! code pass as they are. Only whole HEADERS frames are looked into, everything else passes untouched.

use super::PREFACE_2;

const FRAME_HEAD: usize = 9;
/// What a frame may have by default; larger ones are an error the library tells.
const FRAME_BYTES: usize = 16 << 10;
const HEADERS: u8 = 1;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// `:authority` in the static table (RFC 7541, appendix A).
const AUTHORITY: usize = 1;

/// Bytes on their way to the library.
#[derive(Debug)]
pub(super) struct Mender {
    /// So many bytes pass as they are.
    passing: usize,
    /// The beginning of a frame.
    held: Vec<u8>,
}

impl Mender {
    pub(super) fn new() -> Mender {
        Mender { passing: PREFACE_2.len(), held: Vec::new() }
    }

    pub(super) fn pass(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let count = self.passing.min(bytes.len());
            out.extend_from_slice(&bytes[..count]);
            self.passing -= count;
            bytes = self.hold(&bytes[count..], out);
        }
    }

    /// Takes what belongs to the frame that is held; the rest.
    fn hold<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
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
                // A block that cannot be read is the library's to complain about.
                let _ = mend(&mut self.held[FRAME_HEAD..], flags);
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

/// Walks over the fields of a block up to the authority.
fn mend(payload: &mut [u8], flags: u8) -> Option<()> {
    let padding = if flags & PADDED == 0 { None } else { Some(usize::from(*payload.first()?)) };
    let start = usize::from(padding.is_some()) + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = payload.len().checked_sub(padding.unwrap_or(0))?;
    let mut at = start;
    while at < end {
        let first = payload[at];
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
        let mut authority = index == AUTHORITY;
        if index == 0 {
            let (name, _) = string(payload, &mut at)?;
            authority = payload.get(name)? == b":authority";
        }
        let (value, coded) = string(payload, &mut at)?;
        if authority && !coded {
            let letters = payload.get_mut(value)?.iter_mut();
            letters.filter(|letter| matches!(**letter, b'%' | b'/')).for_each(|letter| *letter = b'-');
            return Some(());
        }
    }
    Some(())
}

/// RFC 7541, 5.1.
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

/// Where a string is, and whether it is in Huffman's code (RFC 7541, 5.2).
fn string(bytes: &[u8], at: &mut usize) -> Option<(std::ops::Range<usize>, bool)> {
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
        let (mut mender, mut out) = (Mender::new(), Vec::new());
        bytes.chunks(step).for_each(|piece| mender.pass(piece, &mut out));
        out
    }

    #[test]
    fn a_path_becomes_a_name_of_the_same_length_and_nothing_else_changes() {
        // POST, http, a path that has what an authority must not, and the authority; then bytes of another frame.
        let block = |name: &[u8]| [b"\x83\x86\x44\x04/%2F\x41\x09", name, b"\x40\x01x\x01/"].concat();
        let data = [0, 0, 3, 0, 1, 0, 0, 0, 1, b'%', b'/', 1];
        let stream = |name| [PREFACE_2, &headers(4, &block(name)), &data, &headers(5, &block(name))].concat();
        for step in 1..60 {
            assert_eq!(passed(&stream(b"%2Ftmp/s%"), step), stream(b"-2Ftmp-s-"), "{step}");
        }
    }

    #[test]
    fn the_name_may_be_written_out() {
        // As grpc-c 48 sends it.
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
