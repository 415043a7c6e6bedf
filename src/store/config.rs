//! What the store is told at the start.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::BootId;
use crate::identity::EndpointId;
use crate::store::{COMMANDS, Kind};

/// Settings of a [`crate::store::Store`].
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: EndpointId,
    /// Collections whose documents are `latest`; every other one but `commands` is `merged`.
    pub latest_collections: BTreeSet<String>,
    /// How long a write that needs no flush may stay unflushed.
    pub flush_interval: Duration,
    /// Memory for cached pages and loaded documents, half each.
    pub cache_bytes: usize,
    /// A request about merged documents of more bytes than this is a job ([`crate::store::Job`]).
    pub job_bytes: usize,
    /// This start of the machine, for what is measured by [`crate::clock::Now::boot_ms`].
    pub boot: BootId,
    /// A defect to plant; for the simulator's canary.
    pub planted: Planted,
}

impl Config {
    /// Collections that are `latest` unless the operator says otherwise.
    pub const LATEST: [&str; 5] = ["agents", "deployments", "packages", "platforms", "tracks"];

    /// Merges of this many bytes take some milliseconds, up to 20 on a small board.
    pub const JOB_BYTES: usize = 16 << 10;

    /// The defaults, for `node`.
    #[must_use]
    pub fn new(node: EndpointId) -> Config {
        Config {
            node,
            latest_collections: Config::LATEST.into_iter().map(String::from).collect(),
            flush_interval: Duration::from_secs(1),
            cache_bytes: 8 << 20,
            job_bytes: Config::JOB_BYTES,
            boot: BootId::default(),
            planted: Planted::Nothing,
        }
    }

    /// The kind of the documents of a collection.
    #[must_use]
    pub fn kind(&self, collection: &str) -> Kind {
        match collection {
            COMMANDS => Kind::Command,
            _ if self.latest_collections.contains(collection) => Kind::Latest,
            _ => Kind::Merged,
        }
    }
}

/// A defect planted on purpose, so that a test shows that the checkers notice.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Planted {
    /// None.
    #[default]
    Nothing,
    /// Durable writes are answered before they are on disk.
    #[cfg(feature = "planted")]
    AckBeforeSync,
}
