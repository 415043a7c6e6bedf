//! Identity of a node: an Ed25519 key; its public half is the endpoint id.

mod key;

use std::fmt;
use std::str::FromStr;

pub use key::Identity;

/// Public Ed25519 key of a node; written as 64 lower-case hex digits.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct EndpointId(pub [u8; 32]);

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Error: the text is not 64 hex digits. Contains its first 80 characters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointIdError(String);

impl fmt::Display for EndpointIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' is not an endpoint id; expected 64 hex digits, as `peat-node id` prints them", self.0)
    }
}

impl std::error::Error for EndpointIdError {}

impl FromStr for EndpointId {
    type Err = EndpointIdError;

    fn from_str(text: &str) -> Result<EndpointId, EndpointIdError> {
        let wrong = || EndpointIdError(text.chars().take(80).collect());
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(EndpointId(bytes))
    }
}
