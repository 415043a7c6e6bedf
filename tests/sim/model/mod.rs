//! Clients that write only what the model of merges ([`crate::checkers::merges`]) can interpret: they edit fields and arrays of
//! the version they see, or of one they saw earlier.

pub mod edits;
pub mod shape;

use peat_node::store::{Key, Version};
use serde_json::Value;

use crate::checkers::merges::Change;
use crate::prng::Prng;

/// Collection of these documents.
pub const COLLECTION: &str = "model";

/// Number of these documents.
const DOCUMENTS: u64 = 2;

/// A version of a document as a client read it.
#[derive(Clone, Debug)]
pub struct Sight {
    pub version: Version,
    pub incarnation: u64,
    pub heads: Vec<Change>,
    pub value: Value,
}

/// Returns every key that these clients write.
pub fn keys() -> Vec<Key> {
    (0..DOCUMENTS).map(key_of).collect()
}

/// Draws one of [`keys`].
pub fn key(random: &mut Prng) -> Key {
    key_of(random.below(DOCUMENTS))
}

fn key_of(number: u64) -> Key {
    Key::new(COLLECTION, format!("m{number}")).expect("a valid key")
}
