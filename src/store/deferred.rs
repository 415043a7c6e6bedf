//! Requests that wait for a job: too long for the store thread, or about a document of such a request.
//!
//! Keeps the order of arrival of requests about one document, and of batches from one peer. Bounded by the number of requests
//! that the other threads may have outstanding.

use std::collections::{BTreeSet, VecDeque};

use crate::identity::EndpointId;
use crate::store::{Envelope, KeyHash, StoreRequest};

/// Maximum size of the documents of one job, in bytes, unless a single request has more.
const JOB_BYTES: usize = 256 << 10;

/// Documents and peers of waiting or running requests.
#[derive(Debug, Default)]
struct Claims {
    documents: BTreeSet<KeyHash>,
    peers: BTreeSet<EndpointId>,
}

impl Claims {
    fn add(&mut self, request: &StoreRequest) {
        self.documents.extend(documents(request));
        self.peers.extend(peer(request));
    }

    fn covers(&self, request: &StoreRequest) -> bool {
        peer(request).is_some_and(|peer| self.peers.contains(&peer))
            || documents(request).any(|hash| self.documents.contains(&hash))
    }
}

/// Queue of the requests that wait for a job, and the claims of the running one; see the module documentation.
#[derive(Debug, Default)]
pub(super) struct Deferred {
    waiting: VecDeque<(Envelope, usize)>,
    waiting_claims: Claims,
    /// Claims of the running job.
    running: Option<Claims>,
}

impl Deferred {
    /// Returns true if a request must wait behind an earlier one about the same document or from the same peer.
    pub(super) fn covers(&self, request: &StoreRequest) -> bool {
        self.waiting_claims.covers(request) || self.running.as_ref().is_some_and(|running| running.covers(request))
    }

    /// Queues a request about this many bytes of documents.
    pub(super) fn push(&mut self, submitted: Envelope, bytes: usize) {
        self.waiting_claims.add(&submitted.request);
        self.waiting.push_back((submitted, bytes));
    }

    /// Takes the requests of the next job; none while a job runs.
    pub(super) fn begin(&mut self) -> Vec<Envelope> {
        let (mut requests, mut claims, mut total) = (Vec::new(), Claims::default(), 0);
        if self.running.is_some() {
            return requests;
        }
        while let Some((_, bytes)) = self.waiting.front()
            && (requests.is_empty() || total + bytes <= JOB_BYTES)
            && let Some((submitted, bytes)) = self.waiting.pop_front()
        {
            total += bytes;
            claims.add(&submitted.request);
            requests.push(submitted);
        }
        if !requests.is_empty() {
            self.running = Some(claims);
            self.waiting_claims = Claims::default();
            self.waiting.iter().for_each(|(submitted, _)| self.waiting_claims.add(&submitted.request));
        }
        requests
    }

    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Releases the claims of the running job, which is over.
    pub(super) fn end(&mut self) {
        self.running = None;
    }
}

/// Returns the documents that a request may read or write.
pub(super) fn documents(request: &StoreRequest) -> impl Iterator<Item = KeyHash> {
    let (one, many) = match request {
        StoreRequest::Write(write) => (Some(write.key.hash()), &[][..]),
        StoreRequest::Apply(apply) => (None, apply.documents.as_slice()),
        StoreRequest::SaveLink(_) | StoreRequest::SaveSync(_) | StoreRequest::Flush | StoreRequest::Nothing => {
            (None, &[][..])
        }
    };
    one.into_iter().chain(many.iter().map(|incoming| incoming.hash))
}

/// Returns the peer that a request moves the cursors of.
fn peer(request: &StoreRequest) -> Option<EndpointId> {
    match request {
        StoreRequest::Apply(apply) => Some(apply.from.node),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Apply, DocumentWrite, Key, PeerRun, Put, RunId, Ticket};

    fn write(ticket: u64, id: &str) -> Envelope {
        let write = DocumentWrite { key: Key::new("notes", id).unwrap(), put: Put::Delete, durable: false };
        Envelope { ticket: Ticket::Api(ticket), request: StoreRequest::Write(write) }
    }

    fn batch_of(peer: u8) -> StoreRequest {
        let from = PeerRun { node: EndpointId([peer; 32]), run: RunId::default() };
        let into = RunId::default();
        StoreRequest::Apply(Apply {
            from,
            into,
            documents: Vec::new(),
            cursors: Vec::new(),
            flush: false,
            excluded: Default::default(),
        })
    }

    fn tickets(requests: &[Envelope]) -> Vec<Ticket> {
        requests.iter().map(|submitted| submitted.ticket).collect()
    }

    #[test]
    fn requests_about_one_document_wait_for_each_other_and_others_do_not() {
        let mut deferred = Deferred::default();
        deferred.push(write(1, "a"), 1_000_000);
        assert!(deferred.covers(&write(2, "a").request) && !deferred.covers(&write(2, "b").request));
        assert_eq!(tickets(&deferred.begin()), [Ticket::Api(1)]);
        assert!(deferred.covers(&write(2, "a").request), "the job runs");
        deferred.push(write(2, "a"), 10);
        assert!(deferred.begin().is_empty(), "one job at a time");
        deferred.end();
        assert!(deferred.covers(&write(3, "a").request), "one still waits");
        assert_eq!(tickets(&deferred.begin()), [Ticket::Api(2)]);
        deferred.end();
        assert!(!deferred.covers(&write(3, "a").request));
    }

    #[test]
    fn batches_from_one_peer_keep_their_order() {
        let mut deferred = Deferred::default();
        deferred.push(Envelope { ticket: Ticket::Sync(1), request: batch_of(7) }, 1_000_000);
        assert!(deferred.covers(&batch_of(7)) && !deferred.covers(&batch_of(8)));
        deferred.begin();
        assert!(deferred.covers(&batch_of(7)));
        deferred.end();
        assert!(!deferred.covers(&batch_of(7)));
    }

    #[test]
    fn a_job_takes_what_fits_and_at_least_one_request() {
        let mut deferred = Deferred::default();
        deferred.push(write(1, "a"), 10 * JOB_BYTES);
        deferred.push(write(2, "b"), JOB_BYTES);
        deferred.push(write(3, "c"), 1);
        deferred.push(write(4, "d"), 1);
        let mut jobs = Vec::new();
        loop {
            let requests = deferred.begin();
            if requests.is_empty() {
                break;
            }
            jobs.push(tickets(&requests));
            deferred.end();
        }
        let api = |numbers: &[u64]| numbers.iter().map(|number| Ticket::Api(*number)).collect::<Vec<_>>();
        assert_eq!(jobs, [api(&[1]), api(&[2]), api(&[3, 4])]);
    }
}
