//! Drives a store as its thread does: several commits, and concurrent jobs that end at random times.

use peat_node::clock::Now;
use peat_node::store::{Envelope, Finished, Job, Reply, Store};

use crate::disk::SimDisk;
use crate::faults::{Fault, Tally};
use crate::prng::Prng;

/// Draws the size above which merges become jobs: most of them, some, or none.
pub fn job_bytes(random: &mut Prng) -> usize {
    *random.pick(&[0, 64, 300, 300, 1_000, 16 << 10])
}

/// Requests in progress in a store.
pub struct Drive {
    requests: Vec<Envelope>,
    running: Option<Running>,
    replies: Vec<Reply>,
}

impl Drive {
    pub fn new(requests: Vec<Envelope>) -> Drive {
        Drive { requests, running: None, replies: Vec::new() }
    }

    /// Performs one commit, or starts or ends a job. Returns true if there is more to do.
    pub fn step(&mut self, store: &mut Store<SimDisk>, now: Now, random: &mut Prng, tally: &Tally) -> bool {
        let begun = self.requests.is_empty();
        if !begun {
            self.commit(store, now, random);
            if self.running.is_some() {
                tally.count(Fault::Overtaken);
            }
        }
        if self.running.is_some() && (begun || random.chance(300)) {
            end(store, now, self.running.take(), &mut self.replies);
        } else if self.running.is_none() {
            self.running = store.poll_job(now, &mut self.replies).map(|job| begin(job, random, tally));
        }
        !self.requests.is_empty() || self.running.is_some() || store.has_deferred()
    }

    fn commit(&mut self, store: &mut Store<SimDisk>, now: Now, random: &mut Prng) {
        let count = if random.chance(500) { self.requests.len() } else { random.index(self.requests.len()) + 1 };
        let some: Vec<Envelope> = self.requests.drain(..count).collect();
        let mut some = some.into_iter().peekable();
        store.handle_commit(now, &mut some, &mut self.replies);
        self.requests.splice(..0, some);
    }

    /// Returns all replies.
    pub fn replies(self) -> Vec<Reply> {
        self.replies
    }
}

/// A job, which computes at a random time between its start and its end.
enum Running {
    Not(Job),
    Done(Finished),
}

fn begin(job: Job, random: &mut Prng, tally: &Tally) -> Running {
    tally.count(Fault::LongMerge);
    if random.chance(500) { Running::Done(job.run()) } else { Running::Not(job) }
}

fn end(store: &mut Store<SimDisk>, now: Now, running: Option<Running>, replies: &mut Vec<Reply>) {
    match running {
        Some(Running::Not(job)) => store.handle_finished(now, job.run(), replies),
        Some(Running::Done(finished)) => store.handle_finished(now, finished, replies),
        None => {}
    }
}
