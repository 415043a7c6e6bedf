//! Settings of the store.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::clock::BootId;
use crate::identity::EndpointId;
use crate::store::{COMMANDS, Kind};

/// Settings of a [`crate::store::Store`].
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Endpoint id of this node.
    pub node: EndpointId,
    /// Collections of kind `latest`; every other one except `commands` is `merged`.
    pub latest_collections: BTreeSet<String>,
    /// Maximum time that a commit which needs no flush stays unflushed.
    pub flush_interval: Duration,
    /// Memory for cached pages and loaded documents, half each, in bytes.
    pub cache_bytes: usize,
    /// Size of merged documents above which a request becomes a job ([`crate::store::Job`]), in bytes.
    pub job_bytes: usize,
    /// This boot of the machine, the reference of [`crate::clock::Now::boot_ms`].
    pub boot: BootId,
    /// Injected bug, for the canary of the simulator.
    pub injected_bug: InjectedBug,
}

impl StoreConfig {
    /// Collections of kind `latest` by default.
    pub const LATEST: [&str; 5] = ["agents", "deployments", "packages", "platforms", "tracks"];

    /// Default of `job_bytes`: merges of this size take some milliseconds, up to 20 on a small board.
    pub const JOB_BYTES: usize = 16 << 10;

    /// Returns the default settings for `node`.
    #[must_use]
    pub fn new(node: EndpointId) -> StoreConfig {
        StoreConfig {
            node,
            latest_collections: StoreConfig::LATEST.into_iter().map(String::from).collect(),
            flush_interval: Duration::from_secs(1),
            cache_bytes: 8 << 20,
            job_bytes: StoreConfig::JOB_BYTES,
            boot: BootId::default(),
            injected_bug: InjectedBug::Nothing,
        }
    }

    /// Returns the kind of the documents of a collection.
    #[must_use]
    pub fn kind(&self, collection: &str) -> Kind {
        match collection {
            COMMANDS => Kind::Command,
            _ if self.latest_collections.contains(collection) => Kind::Latest,
            _ => Kind::Merged,
        }
    }
}

/// A bug injected on purpose, to show that the tests' checkers notice it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum InjectedBug {
    /// No bug.
    #[default]
    Nothing,
    /// Answers durable writes before they are on disk.
    #[cfg(feature = "fault-injection")]
    AckBeforeSync,
}
