//! Chunked bodies (RFC 9112, section 7.1), parsed strictly: two parsers that disagree about a body make request smuggling
//! possible.

use super::Refusal;
use crate::limits::HTTP_HEAD_BYTES;

/// Maximum number of hexadecimal digits of a chunk's size; eight of them reach 4 GiB.
const SIZE_DIGITS: usize = 8;

/// Position of the parser within a chunked body.
#[derive(Debug)]
pub(super) enum Chunked {
    /// Before the size of a chunk.
    Size,
    /// Within a chunk; this number of bytes is still to come.
    Data(usize),
    /// After the data of a chunk.
    Gap,
    /// After the last chunk, in trailer fields, which are ignored; holds their bytes so far, for the limit.
    Trailer(usize),
    Done,
}

impl Chunked {
    /// Parses on. Returns the number of `bytes` used, and the part of them that is body; 0 used means that more input is needed.
    pub(super) fn read<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, &'a [u8]), Refusal> {
        let none = |used: usize| Ok((used, &bytes[..0]));
        match *self {
            Chunked::Size => {
                let Some(line) = line(bytes, SIZE_DIGITS)? else { return none(0) };
                let size = size(line)?;
                *self = if size == 0 { Chunked::Trailer(0) } else { Chunked::Data(size) };
                none(line.len() + 2)
            }
            Chunked::Data(left) => {
                let count = left.min(bytes.len());
                *self = if count == left { Chunked::Gap } else { Chunked::Data(left - count) };
                Ok((count, &bytes[..count]))
            }
            Chunked::Gap => {
                let Some(line) = line(bytes, 0)? else { return none(0) };
                *self = Chunked::Size;
                none(line.len() + 2)
            }
            Chunked::Trailer(seen) => {
                let Some(line) = line(bytes, HTTP_HEAD_BYTES - seen)? else { return none(0) };
                *self = if line.is_empty() { Chunked::Done } else { Chunked::Trailer(seen + line.len()) };
                none(line.len() + 2)
            }
            Chunked::Done => none(0),
        }
    }
}

/// Returns the line at the start of `bytes`, which ends with CR LF; `None` while it is incomplete.
fn line(bytes: &[u8], most: usize) -> Result<Option<&[u8]>, Refusal> {
    let shown = &bytes[..bytes.len().min(most + 2)];
    let Some(end) = shown.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() > most { Err(malformed("a line of a chunked body is too long")) } else { Ok(None) };
    };
    match &shown[end..] {
        [b'\r', b'\n', ..] => Ok(Some(&shown[..end])),
        [b'\r'] if bytes.len() < most + 2 => Ok(None),
        _ => Err(malformed("a line of a chunked body does not end with CR LF")),
    }
}

fn size(line: &[u8]) -> Result<usize, Refusal> {
    let text = std::str::from_utf8(line).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    text.and_then(|text| usize::from_str_radix(text, 16).ok())
        .ok_or_else(|| malformed("a chunk's size is not a hexadecimal number alone"))
}

fn malformed(why: &str) -> Refusal {
    Refusal::new(400, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `text` in pieces of `step` bytes; `None` if the body is incomplete.
    fn read(text: &[u8], step: usize) -> Result<Option<Vec<u8>>, Refusal> {
        let (mut chunked, mut body, mut buffer) = (Chunked::Size, Vec::new(), Vec::new());
        for piece in text.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                let (used, data) = chunked.read(&buffer)?;
                body.extend_from_slice(data);
                if used == 0 {
                    break;
                }
                buffer.drain(..used);
            }
        }
        Ok(matches!(chunked, Chunked::Done).then_some(body))
    }

    #[test]
    fn chunks_may_come_in_any_pieces() {
        let text = b"4\r\nWiki\r\n0a\r\npedia in\r\n\r\n0\r\nX: y\r\n\r\n";
        for step in 1..text.len() {
            assert_eq!(read(text, step).expect("a body"), Some(b"Wikipedia in\r\n".to_vec()), "{step}");
        }
    }

    #[test]
    fn what_others_might_read_otherwise_is_refused() {
        for text in [
            &b"4;a=b\r\nWiki\r\n0\r\n\r\n"[..],
            b"4\nWiki\n0\n\n",
            b" 4\r\nWiki\r\n0\r\n\r\n",
            b"+4\r\nWiki\r\n0\r\n\r\n",
            b"0x4\r\nWiki\r\n0\r\n\r\n",
            b"4\r\nWikiX\r\n0\r\n\r\n",
            b"4\r\nWiki\n0\r\n\r\n",
            b"\r\n",
            b"fffffffff\r\n",
            b"4\r\rWiki",
        ] {
            let whole = read(text, text.len());
            assert!(whole.is_err(), "{:?}: {whole:?}", text.escape_ascii().to_string());
        }
    }
}
