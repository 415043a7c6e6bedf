//! Names of documents: the collection and the id.

use std::fmt;

use ring::digest;

use crate::limits::ID_BYTES;

/// A validated collection name and document id.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    collection: String,
    id: String,
}

/// Reason to refuse a collection name or document id; each names the part, "collection" or "document id".
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyError {
    /// The part is empty.
    Empty(&'static str),
    /// The part is longer than [`ID_BYTES`]; its length in bytes.
    Long(&'static str, usize),
    /// The part contains a control character (Unicode category Cc).
    Control(&'static str),
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyError::Empty(what) => write!(f, "the {what} is empty"),
            KeyError::Long(what, bytes) => write!(f, "the {what} has {bytes} bytes; the limit is {ID_BYTES}"),
            KeyError::Control(what) => write!(f, "the {what} contains a control character"),
        }
    }
}

impl std::error::Error for KeyError {}

fn validate(what: &'static str, text: &str) -> Result<(), KeyError> {
    match text {
        "" => Err(KeyError::Empty(what)),
        _ if text.len() > ID_BYTES => Err(KeyError::Long(what, text.len())),
        _ if text.chars().any(char::is_control) => Err(KeyError::Control(what)),
        _ => Ok(()),
    }
}

impl Key {
    /// Validates both parts.
    ///
    /// # Errors
    /// A part is empty, exceeds [`ID_BYTES`], or contains a control character.
    pub fn new(collection: impl Into<String>, id: impl Into<String>) -> Result<Key, KeyError> {
        let (collection, id) = (collection.into(), id.into());
        validate("collection", &collection)?;
        validate("document id", &id)?;
        Ok(Key { collection, id })
    }

    /// Returns the name of the collection.
    #[must_use]
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// Returns the id of the document within its collection.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the first 16 bytes of SHA-256 over the collection, a zero byte, and the id. Neither part can contain that byte.
    #[must_use]
    pub fn hash(&self) -> KeyHash {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.collection.as_bytes());
        context.update(&[0]);
        context.update(self.id.as_bytes());
        let mut hash = [0; 16];
        hash.copy_from_slice(&context.finish().as_ref()[..16]);
        KeyHash(hash)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.id)
    }
}

/// Identifier of a document between nodes and on disk; see [`Key::hash`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyHash(pub [u8; 16]);
