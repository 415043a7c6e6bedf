//! Reads numbers and lengths; a length never exceeds the bytes that are left.

use super::ChunkError;

const TRUNCATED: ChunkError = ChunkError::Malformed("it ends too early");
const NUMBER: ChunkError = ChunkError::Malformed("a number is too large or too long");

/// Unread bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<&'a [u8], ChunkError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ChunkError> {
        Ok(self.take(1)?[0])
    }

    /// Reads a length and that number of bytes.
    pub(super) fn prefixed(&mut self) -> Result<&'a [u8], ChunkError> {
        let length = self.count(1)?;
        self.take(length)
    }

    /// Reads the number of items that take at least `bytes_each`.
    pub(super) fn count(&mut self, bytes_each: usize) -> Result<usize, ChunkError> {
        match usize::try_from(self.unsigned()?) {
            Ok(count) if count <= self.rest.len() / bytes_each => Ok(count),
            _ => Err(TRUNCATED),
        }
    }

    /// Reads an unsigned LEB128 number in its shortest form.
    pub(super) fn unsigned(&mut self) -> Result<u64, ChunkError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            // The tenth byte has room for one bit, and a last byte of zero is not the shortest form.
            if shift == 63 && byte > 1 || shift > 0 && byte == 0 {
                return Err(NUMBER);
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(NUMBER)
    }

    /// Reads a signed LEB128 number in its shortest form.
    pub(super) fn signed(&mut self) -> Result<i64, ChunkError> {
        let mut number = 0i64;
        let mut previous = 0u8;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            // A last byte that only repeats the sign is not the shortest form.
            let only_repeats_the_sign = byte == 0 && previous & 0x40 == 0 || byte == 0x7f && previous & 0x40 != 0;
            if shift == 63 && !matches!(byte, 0 | 0x7f) || shift > 0 && only_repeats_the_sign {
                return Err(NUMBER);
            }
            number |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let sign = if byte & 0x40 != 0 && shift < 57 { -1i64 << (shift + 7) } else { 0 };
                return Ok(number | sign);
            }
            previous = byte;
        }
        Err(NUMBER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_to_the_ends_of_their_ranges() {
        let unsigned = |bytes: &[u8]| Reader::new(bytes).unsigned();
        assert_eq!(unsigned(&[0]), Ok(0));
        assert_eq!(unsigned(&[0xe5, 0x8e, 0x26]), Ok(624_485));
        assert_eq!(unsigned(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Ok(u64::MAX));
        let signed = |bytes: &[u8]| Reader::new(bytes).signed();
        assert_eq!(signed(&[0x7f]), Ok(-1));
        assert_eq!(signed(&[0x3f]), Ok(63));
        assert_eq!(signed(&[0xc0, 0]), Ok(64));
        assert_eq!(signed(&[0x40]), Ok(-64));
        assert_eq!(signed(&[0xc0, 0xbb, 0x78]), Ok(-123_456));
        assert_eq!(signed(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]), Ok(i64::MAX));
        assert_eq!(signed(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]), Ok(i64::MIN));
    }

    #[test]
    fn overlong_and_truncated_numbers_are_refused() {
        for bytes in [&[0x80, 0][..], &[0xff; 11], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert_eq!(Reader::new(bytes).unsigned(), Err(NUMBER));
        }
        for bytes in [&[0x80, 0][..], &[0xff, 0x7f], &[0xff; 11], &[0x80; 10]] {
            assert_eq!(Reader::new(bytes).signed(), Err(NUMBER));
        }
        assert_eq!(Reader::new(&[0x80]).unsigned(), Err(TRUNCATED));
        assert_eq!(Reader::new(&[0x80]).signed(), Err(TRUNCATED));
        assert_eq!(Reader::new(&[3, 1, 2]).prefixed(), Err(TRUNCATED));
    }
}
