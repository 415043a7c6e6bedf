//! Secret bytes, which are never displayed, and the files they are read from.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use zeroize::Zeroizing;

use crate::files;
use crate::limits::FORMATION_KEY_BYTES;

/// Maximum size of a secret file, in bytes.
const FILE_BYTES: u64 = 16 << 10;

/// Key material. Its `Debug` shows nothing of it, and its bytes are wiped when it is dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Secret {
        Secret(Zeroizing::new(bytes))
    }

    /// Returns the bytes, for cryptographic use.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Decodes a formation key from base64 in either alphabet, padded or not.
pub(super) fn formation_key(text: &str) -> Result<Secret, String> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text = text.trim();
    let alphabet = if text.contains(['-', '_']) { alphabet::URL_SAFE } else { alphabet::STANDARD };
    let bytes = GeneralPurpose::new(&alphabet, config).decode(text).map_err(|_| "is not base64".to_owned())?;
    match bytes.len() {
        FORMATION_KEY_BYTES.. => Ok(Secret::new(bytes)),
        short => Err(format!(
            "has {short} bytes; a key needs at least {FORMATION_KEY_BYTES} (make one with `peat-node keygen`)"
        )),
    }
}

/// Reads a file with a key in the form that [`formation_key`] accepts.
pub(super) fn key_file(path: &Path) -> Result<Secret, String> {
    formation_key(&read(path)?).map_err(|reason| format!("{} {reason}", path.display()))
}

/// Reads a secret file, which must be closed to all users but its owner and group.
pub(super) fn read(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = files::secret_text(path, FILE_BYTES).map_err(|cause| cause.of(path))?;
    match text.strip_prefix('\u{feff}') {
        Some(rest) => Ok(Zeroizing::new(rest.to_owned())),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_in_either_alphabet_padded_or_not() {
        for text in ["+/+/+/+/+/+/+/+/+/+/+w==", "-_-_-_-_-_-_-_-_-_-_-w", "-_-_-_-_-_-_-_-_-_-_-w==\n"] {
            let key = formation_key(text).expect(text);
            assert_eq!(key.expose().len(), 16, "{text}");
        }
    }

    #[test]
    fn a_short_key_is_refused_with_the_limit() {
        let reason = formation_key("c2hvcnQ=").expect_err("5 bytes");
        assert!(reason.contains("5 bytes") && reason.contains("16"), "{reason}");
    }

    #[test]
    fn a_secret_does_not_show_itself() {
        assert_eq!(format!("{:?}", Secret::new(b"hunter2".to_vec())), "***");
    }
}
