//! What names a document: its collection and its id.

use std::fmt;

use ring::digest;

use crate::limits::ID_BYTES;

/// A validated `(collection, doc_id)`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Key {
    collection: String,
    id: String,
}

/// Why a collection name or document id is refused.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyError {
    /// Which of the two, "collection" or "document id", is empty.
    Empty(&'static str),
    /// Longer than [`ID_BYTES`]: which, and its length in bytes.
    Long(&'static str, usize),
    /// Contains a control character (Unicode category Cc).
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
    /// A part is empty, over [`ID_BYTES`], or has a control character.
    pub fn new(collection: impl Into<String>, id: impl Into<String>) -> Result<Key, KeyError> {
        let (collection, id) = (collection.into(), id.into());
        validate("collection", &collection)?;
        validate("document id", &id)?;
        Ok(Key { collection, id })
    }

    /// The collection's name.
    #[must_use]
    pub fn collection(&self) -> &str {
        &self.collection
    }

    /// The document's id within its collection.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The first 16 bytes of SHA-256 over the collection, a zero byte, and the id. Neither part can contain that byte.
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

/// What a document is called between nodes and on disk: see [`Key::hash`].
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KeyHash(pub [u8; 16]);
