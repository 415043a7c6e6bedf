//! Clients whose every write the model of merges ([`crate::checkers::merges`]) understands: they edit fields and arrays of what they
//! see, or of what they saw a while ago.

pub mod edits;
pub mod shape;

use peat_node::store::{Key, Version};
use serde_json::Value;

use crate::checkers::merges::Change;
use crate::prng::Prng;

/// The collection these documents are in.
pub const COLLECTION: &str = "model";

/// How many of them there are.
const DOCUMENTS: u64 = 2;

/// What a client was shown of a document.
#[derive(Clone, Debug)]
pub struct Sight {
    pub version: Version,
    pub incarnation: u64,
    pub heads: Vec<Change>,
    pub value: Value,
}

/// Every key these clients write.
pub fn keys() -> Vec<Key> {
    (0..DOCUMENTS).map(key_of).collect()
}

/// One of [`keys`].
pub fn key(random: &mut Prng) -> Key {
    key_of(random.below(DOCUMENTS))
}

fn key_of(number: u64) -> Key {
    Key::new(COLLECTION, format!("m{number}")).expect("a valid key")
}
