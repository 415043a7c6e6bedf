//! Long merges, staged on the merge thread.
//!
//! Owns nothing of the store: it receives requests and loaded documents, and returns a batch for the store to commit. The
//! store changes none of those documents meanwhile ([`crate::store::deferred`]).

use std::sync::Arc;

use crate::clock::Now;
use crate::store::batch::{Batch, Pending};
use crate::store::cache::Cache;
use crate::store::copies::Copies;
use crate::store::database_clock::DatabaseClock;
use crate::store::stage::{BatchStager, Committed, Writer};
use crate::store::{Envelope, Error, Reader, RunId};

/// Requests to stage on another thread. It reads the database and writes nothing.
#[derive(Debug)]
pub struct Job {
    pub(super) requests: Vec<Envelope>,
    pub(super) writer: Arc<Writer>,
    pub(super) reader: Reader,
    /// Loaded documents of the requests.
    pub(super) cache: Cache,
    pub(super) durable: u64,
    pub(super) now: Now,
    pub(super) clocks: DatabaseClock,
}

/// The batch of a [`Job`] that has run.
#[derive(Debug)]
pub struct Finished {
    /// Run in which the job began.
    pub(super) run: RunId,
    pub(super) batch: Batch,
    /// Loaded documents that were not used.
    pub(super) cache: Cache,
    /// Error of the disk, if it failed.
    pub(super) result: Result<(), Error>,
}

impl Job {
    /// Stages the requests. Takes time in proportion to the size of the documents.
    #[must_use]
    pub fn run(self) -> Finished {
        let (mut batch, mut cache, mut result) = (Batch::default(), self.cache, Ok(()));
        let mut stage = BatchStager {
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
                // The answer is replaced by the error of the disk.
                Err(_) => stage.batch.answers.push((submitted.ticket, Pending::Done)),
            }
        }
        Finished { run: self.writer.run, batch, cache, result }
    }
}
