//! Decoder of the Huffman code of header compression (RFC 7541, appendix B).
//!
//! The code is canonical: code lengths define it completely, because codes of equal length are consecutive, in the order of their
//! symbols.

/// Code length of each byte, in bits.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];
/// Longest code, in bits.
const LONGEST: usize = 30;

/// Decodes a Huffman-coded string; `None` if it is malformed.
pub(super) fn decode(coded: &[u8]) -> Option<Vec<u8>> {
    let (counts, symbols) = table();
    let mut bits = coded.iter().flat_map(|byte| (0..8).rev().map(move |shift| usize::from(byte >> shift & 1)));
    let mut text = Vec::with_capacity(coded.len() * 2);
    loop {
        // `first` is the first code of the current length, `place` the index of its symbol in the sorted table.
        let (mut code, mut first, mut place) = (0, 0, 0);
        let mut padding = true;
        let mut length = 0;
        let symbol = loop {
            let Some(bit) = bits.next() else {
                // Valid padding consists of ones, and is shorter than a byte.
                return (padding && length < 8).then_some(text);
            };
            padding &= bit == 1;
            code = code << 1 | bit;
            length += 1;
            let count = *counts.get(length)?;
            if code - first < count {
                break *symbols.get(place + code - first)?;
            }
            place += count;
            first = (first + count) << 1;
        };
        text.push(symbol);
    }
}

/// Returns the number of codes of each length, and the symbols in the order of their codes.
fn table() -> ([usize; LONGEST + 1], Vec<u8>) {
    let mut counts = [0; LONGEST + 1];
    LENGTHS.iter().for_each(|length| counts[usize::from(*length)] += 1);
    let mut symbols: Vec<u8> = (0..=u8::MAX).collect();
    // The sort is stable, so symbols of equal length stay in order.
    symbols.sort_by_key(|symbol| LENGTHS[usize::from(*symbol)]);
    (counts, symbols)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Encodes a string, for the tests.
    pub(in crate::api::http) fn encode(text: &[u8]) -> Vec<u8> {
        let (counts, symbols) = table();
        let mut bits = Vec::new();
        for byte in text {
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let (first, place) =
                (1..length).fold((0, 0), |(first, place), short| ((first + counts[short]) << 1, place + counts[short]));
            let rank = symbols.iter().position(|symbol| symbol == byte).expect("a symbol") - place;
            let code = first + rank;
            bits.extend((0..length).rev().map(|shift| u8::from(code >> shift & 1 == 1)));
        }
        bits.resize(bits.len().next_multiple_of(8), 1);
        bits.chunks(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
    }

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        for (coded, text) in [
            (&b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"[..], &b"www.example.com"[..]),
            (b"\xa8\xeb\x10\x64\x9c\xbf", b"no-cache"),
            (b"\x9d\x29\xad\x17\x18\x63\xc7\x8f\x0b\x97\xc8\xe9\xae\x82\xae\x43\xd3", b"https://www.example.com"),
            (
                b"\xd0\x7a\xbe\x94\x10\x54\xd4\x44\xa8\x20\x05\x95\x04\x0b\x81\x66\xe0\x82\xa6\x2d\x1b\xff",
                b"Mon, 21 Oct 2013 20:13:21 GMT",
            ),
        ] {
            assert_eq!(decode(coded).as_deref(), Some(text));
            assert_eq!(encode(text), coded);
        }
    }

    #[test]
    fn the_code_is_complete_and_every_byte_survives_it() {
        let taken: u64 = LENGTHS.iter().map(|length| 1 << (LONGEST - usize::from(*length))).sum();
        assert_eq!(taken + 1, 1 << LONGEST, "all but the end of a string");
        let all: Vec<u8> = (0..=u8::MAX).collect();
        assert_eq!(decode(&encode(&all)), Some(all));
    }

    #[test]
    fn what_is_not_the_code_is_refused() {
        // Padding of a whole byte, padding with zeros, and the end-of-string symbol.
        for coded in [&b"\xff"[..], b"\x18", b"\xff\xff\xff\xff"] {
            assert_eq!(decode(coded), None, "{coded:?}");
        }
    }
}
