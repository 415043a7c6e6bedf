//! Carries out the fleet's requests: messages to agents, writes, and presence announcements.
//!
//! Also submits every other write that no client requested.

use peat_ipc::method::Response;

use super::{Engine, InternalWrite};
use crate::api::agents;
use crate::clock::Now;
use crate::error::Blame;
use crate::fleet::{self, Attachment, Owner, WriteResult};
use crate::limits::STORE_QUEUE;
use crate::store::{self, DocumentWrite, Envelope, Key, Ticket};
use crate::sync::{Control, ControlRequest};

/// Maximum number of such writes in progress at once.
const OWN_WRITES: usize = 64;

impl Engine {
    /// Carries out the requests of the fleet. Called after every event that may have caused some.
    pub(super) fn settle_fleet(&mut self, now: Now) {
        loop {
            if let Some((stream, error)) = self.fleet.poll_end() {
                match error {
                    Some(error) => self.finish(now, stream.0, Err::<&Response, _>(&error)),
                    None => self.end_stream(now, stream.0),
                }
            } else if let Some((stream, message)) = self.fleet.poll_message() {
                self.deliver(now, stream, message);
            } else if let Some(attachment) = self.fleet.poll_attachment() {
                match attachment {
                    Attachment::Attached(agent, _) => self.commands.handle_attached(now, &agent),
                    Attachment::Detached(agent) => {
                        self.commands.handle_detached(now, &agent);
                        #[cfg(feature = "http")]
                        self.listen_again(now, &agent);
                    }
                }
            } else {
                break;
            }
        }
        self.write_for_fleet(now);
        if self.fleet.poll_announcement(now) {
            self.to_sync.push_back(ControlRequest { call: 0, control: Control::Announce });
        }
        if self.fleet.last_change() != self.watched {
            self.watched = self.fleet.last_change();
            let watchers: Vec<u64> = self.watchers.iter().copied().collect();
            watchers.into_iter().for_each(|number| self.advance_watch(now, number));
        }
    }

    fn write_for_fleet(&mut self, now: Now) {
        while self.has_room_of_its_own() {
            let Some(fleet::FleetWrite { number, key, change }) = self.fleet.poll_write(now) else { return };
            let held = self.view.snapshot().ok().and_then(|snapshot| snapshot.document(&key).ok()?);
            if !fleet::changes(&change, held.as_ref().map(|document| document.json.as_str())) {
                self.fleet.handle_written(now, number, WriteResult::Done);
                continue;
            }
            let own = InternalWrite::Fleet(number, key.clone());
            self.submit_own(now, own, DocumentWrite { key, put: agents::put(change), durable: false });
        }
    }

    /// Returns true if one more write that no client requested may be submitted.
    pub(super) fn has_room_of_its_own(&self) -> bool {
        self.own_writes.len() < OWN_WRITES && self.store_outstanding < STORE_QUEUE
    }

    pub(super) fn submit_own(&mut self, now: Now, own: InternalWrite, write: DocumentWrite) {
        self.submit_request(now, own, store::StoreRequest::Write(write));
    }

    pub(super) fn submit_request(&mut self, now: Now, own: InternalWrite, request: store::StoreRequest) {
        self.last_call += 1;
        self.own_writes.insert(self.last_call, own);
        self.store_outstanding += 1;
        self.view.note_request(now);
        let ticket = Ticket::Api(self.last_call);
        self.to_store.push_back(Envelope { ticket, request });
    }

    /// Handles the store's reply to a write that no client requested; returns false if the ticket is a client's call.
    pub(super) fn own_written<T>(&mut self, now: Now, ticket: u64, result: &Result<T, store::Error>) -> bool {
        match self.own_writes.remove(&ticket) {
            None => return false,
            Some(InternalWrite::Fleet(number, key)) => self.fleet_written(now, number, &key, result),
            Some(InternalWrite::Command(heard)) => self.command_written(now, heard, result.as_ref().err()),
            #[cfg(feature = "http")]
            Some(InternalWrite::Probe(number)) => self.probed_store(now, number),
        }
        true
    }

    fn fleet_written<T>(&mut self, now: Now, number: u64, key: &Key, result: &Result<T, store::Error>) {
        let written = match result {
            Ok(_) => WriteResult::Done,
            Err(error) if error.blame() == Blame::Machine => WriteResult::Failed,
            Err(error) => {
                log::warn!("{key}: an agent's state is not stored: {error}");
                WriteResult::Refused
            }
        };
        self.note_platform(key.collection(), key.id());
        self.fleet.handle_written(now, number, written);
    }

    /// Counts a client's put to a platform as a sign of life of the agent with that id.
    pub(super) fn note_sign(&mut self, now: Now, agent: &str, owner: Owner) {
        self.fleet.handle_sign(now, agent, owner);
        self.note_platform("platforms", agent);
    }

    /// Reads the platform of an agent after a write here: its status may have changed.
    fn note_platform(&mut self, collection: &str, agent: &str) {
        if collection == "deployments" {
            return;
        }
        let Ok(snapshot) = self.view.snapshot() else { return };
        // If it cannot be read now, it is read at the next change.
        let _ = super::index_follower::tell_platform(&mut self.fleet, self.latest, snapshot, agent);
    }
}
