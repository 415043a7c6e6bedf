//! Merges that take long, staged off the store thread.
//!
//! Owns nothing of the store: it is handed the requests and the loaded documents, and hands back a batch for the store to commit.
//! Nobody else changes those documents meanwhile ([`crate::store::deferred`]).

use std::sync::Arc;

use crate::clock::Now;
use crate::store::age::Clocks;
use crate::store::batch::{Batch, Pending};
use crate::store::cache::Cache;
use crate::store::copies::Copies;
use crate::store::stage::{Committed, Stage, Writer};
use crate::store::{Error, Reader, RunId, Submitted};

/// See the module. Reads the database; computes the rest.
#[derive(Debug)]
pub struct Job {
    pub(super) requests: Vec<Submitted>,
    pub(super) writer: Arc<Writer>,
    pub(super) reader: Reader,
    /// The loaded documents of the requests.
    pub(super) cache: Cache,
    pub(super) durable: u64,
    pub(super) now: Now,
    pub(super) clocks: Clocks,
}

/// A [`Job`] that ran.
#[derive(Debug)]
pub struct Finished {
    /// The run that it was begun in.
    pub(super) run: RunId,
    pub(super) batch: Batch,
    /// Documents that were not used.
    pub(super) cache: Cache,
    /// The disk failed.
    pub(super) result: Result<(), Error>,
}

impl Job {
    /// Stages the requests. Takes as long as the documents are large.
    #[must_use]
    pub fn run(self) -> Finished {
        let (mut batch, mut cache, mut result) = (Batch::default(), self.cache, Ok(()));
        let mut stage = Stage {
            writer: &self.writer,
            committed: Committed::Newest(self.reader),
            cache: &mut cache,
            batch: &mut batch,
            copies: &mut Copies::default(),
            durable: self.durable,
            now: self.now,
            clocks: self.clocks,
        };
        for submitted in self.requests {
            match &result {
                Ok(()) => result = stage.request(submitted),
                Err(_) => stage.batch.answers.push((submitted.ticket, Pending::Done)),
            }
        }
        Finished { run: self.writer.run, batch, cache, result }
    }
}
