//! Running sessions: feeds them their input and handles their reports.

use super::{Engine, Pending, STORE_OUTSTANDING};
use std::collections::BTreeSet;

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits::BATCH_BYTES;
use crate::store::{self, KeyHash, Kind, Outcome, Record, StoreRequest};
use crate::sync::copied;
use crate::sync::held::Direction;
use crate::sync::link::{Lane, LinkId};
use crate::sync::session::{Report, Session, SessionError};

impl Engine {
    /// Reads, applies, answers and fills one session.
    pub(super) fn run_session(&mut self, now: Now, link: LinkId) {
        let Some(mut session) = self.sessions.remove(&link) else { return };
        match self.work(now, &mut session) {
            Ok(()) => {
                self.sessions.insert(link, session);
            }
            Err(fault) => {
                self.sessions.insert(link, session);
                self.end(now, link, &fault);
            }
        }
    }

    fn work(&mut self, now: Now, session: &mut Session) -> Result<(), SessionError> {
        self.read(now, session)?;
        if self.pending.len() < STORE_OUTSTANDING {
            if let Some(apply) = session.poll_apply(now)? {
                self.submit(StoreRequest::Apply(apply), Pending::Apply(session.link));
            }
        } else {
            self.dirty.insert(session.link);
        }
        let Ok(snapshot) = self.reader.snapshot() else { return Ok(()) };
        session.set_batch_bytes(self.links.batch_bytes(session.link));
        let (links, link) = (&mut self.links, session.link);
        let mut traffic = self.peers.get_mut(&session.peer).map(|peer| &mut peer.traffic);
        let write = |lane: Lane, bytes: &[u8]| {
            let written = links.write(now, link, lane, bytes);
            if let Some(traffic) = &mut traffic {
                traffic[lane].sent += written as u64;
            }
            written
        };
        if session.fill(now, self.tip.durable, !self.waits.is_empty(), &snapshot, write)? {
            self.dirty.insert(link);
        }
        for report in session.take_reports() {
            self.on_report(now, session, report)?;
        }
        Ok(())
    }

    fn read(&mut self, now: Now, session: &mut Session) -> Result<(), SessionError> {
        loop {
            let lanes = session.lanes_to_read();
            if lanes.is_empty() {
                return Ok(());
            }
            for lane in lanes {
                let mut bytes = std::mem::take(&mut self.scratch);
                bytes.clear();
                let more = self.links.read(now, session.link, lane, &mut bytes, BATCH_BYTES);
                session.feed(lane, &bytes, more);
                if let Some(peer) = self.peers.get_mut(&session.peer) {
                    peer.traffic[lane].received += bytes.len() as u64;
                }
                self.scratch = bytes;
                while session.step(now, lane, &self.ours, &self.reader)? {
                    for report in session.take_reports() {
                        self.on_report(now, session, report)?;
                    }
                }
            }
        }
    }

    fn on_report(&mut self, now: Now, session: &mut Session, report: Report) -> Result<(), SessionError> {
        match report {
            Report::Proved { proof } => self.on_proved(now, session, &proof),
            Report::Met { run, skew_ms, name, mismatched } => {
                if let Some(peer) = self.peers.get_mut(&session.peer) {
                    peer.name = name;
                }
                self.warn_of_namesake(now, session.peer);
                self.on_met(now, session, run, skew_ms, &mismatched)
            }
            Report::WentBack => {
                self.went_back = true;
                if self.log.allows(now, "went back") {
                    log::warn!(
                        "this database is older than what {} has of it, a backup that was restored: each `disconnect` since is forgotten; look at `peat-node peers`",
                        session.peer
                    );
                }
                Ok(())
            }
            Report::Live { compares } => {
                if let Some(peer) = self.peers.get_mut(&session.peer) {
                    peer.succeeded();
                    if compares || peer.last_audit.is_none() {
                        peer.last_audit = Some(now.mono);
                    }
                }
                self.release_superseded(session.peer);
                self.greet_present(now, session);
                Ok(())
            }
            Report::Present(presence) => {
                self.on_presence(now, &presence);
                Ok(())
            }
            Report::Refused(hash) => {
                self.hold_back(now, session.peer, hash, "its log says why");
                Ok(())
            }
            Report::Withheld(hash, reason) => {
                self.hold_back(now, session.peer, hash, &reason);
                Ok(())
            }
            Report::Declined(declined) => {
                let way = (session.peer, declined.hash, Direction::In);
                self.note_held(now, way, declined.incarnation, &declined.sentence);
                Ok(())
            }
            Report::Acked(acked) => {
                if let Some(peer) = self.peers.get_mut(&session.peer) {
                    peer.last_ack = Some(now.mono);
                }
                if !self.held.is_empty() {
                    acked.iter().for_each(|(hash, _)| self.release_acked(session.peer, *hash));
                }
                self.check_waits(session, &acked);
                Ok(())
            }
        }
    }

    // Documents that do not cross.

    /// Notes that a peer does not have the newest version of a document, for this reason.
    fn hold_back(&mut self, now: Now, peer: EndpointId, hash: KeyHash, reason: &str) {
        let record = self.held_record(hash);
        let incarnation = record.as_ref().map_or(1, |record| record.incarnation);
        let remedy =
            record.as_ref().filter(|record| record.kind == Kind::Merged).and_then(|record| record.name.as_ref());
        let remedy = remedy.map_or_else(String::new, |name| {
            format!(": run `peat-node compact {} {}`, shorten or delete it", name.collection(), name.id())
        });
        let name = record.and_then(|record| record.name);
        let name = name.map_or_else(|| "a document".to_owned(), |name| format!("document {name}"));
        let sentence = format!("it does not have the newest version of {name}, {reason}{remedy}");
        self.note_held(now, (peer, hash, Direction::Out), incarnation, &sentence);
    }

    fn held_record(&self, hash: KeyHash) -> Option<Record> {
        self.reader.snapshot().and_then(|snapshot| snapshot.record(&hash)).ok().flatten()
    }

    /// Releases a document that the peer acknowledged. If it is deleted or compacted here, this node lacks nothing of it
    /// either.
    fn release_acked(&mut self, peer: EndpointId, hash: KeyHash) {
        self.held.release(peer, hash, Direction::Out);
        self.release_if_superseded(peer, hash, Direction::In);
    }

    /// Releases documents that have been superseded since an earlier link: the other end may have received the newer form by
    /// another path. If that does not cross either, it is noted when it is offered.
    fn release_superseded(&mut self, peer: EndpointId) {
        for (hash, way) in self.held.of_peer(peer).collect::<Vec<_>>() {
            self.release_if_superseded(peer, hash, way);
        }
    }

    fn release_if_superseded(&mut self, peer: EndpointId, hash: KeyHash, way: Direction) {
        if let Some(lacked) = self.held.incarnation(peer, hash, way)
            && let Some(record) = self.held_record(hash)
            && (record.incarnation > lacked || !record.is_live())
        {
            self.held.release(peer, hash, way);
        }
    }

    fn note_held(
        &mut self,
        now: Now,
        (peer, hash, way): (EndpointId, KeyHash, Direction),
        incarnation: u64,
        sentence: &str,
    ) {
        let sentence = format!("{peer}: {sentence}");
        if self.log.allows(now, &sentence) {
            log::warn!("{sentence}");
        }
        self.held.note(peer, hash, way, incarnation, sentence);
    }

    // Results from the store.

    pub(super) fn on_applied(&mut self, now: Now, link: LinkId, result: Result<Outcome, store::Error>) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        self.dirty.insert(link);
        let fault = match result {
            Ok(Outcome::Applied(applied)) => {
                let id = session.peer;
                for node in &applied.copied {
                    if self.copied.note(now, *node) {
                        log::error!("{}", copied::words(*node, self.ours.id));
                    }
                }
                if !self.held.is_empty() {
                    let open: BTreeSet<_> = applied.missing.iter().map(|(hash, _)| *hash).collect();
                    for hash in session.submitted().filter(|hash| !open.contains(hash)) {
                        self.held.release(id, hash, Direction::In);
                        // If the peer still lacks something of it, that is noted when it is next sent.
                        self.held.release(id, hash, Direction::Out);
                    }
                }
                let refused = applied.refused.clone();
                let fault = session.handle_applied(applied).err();
                for (hash, reason) in refused {
                    let incarnation = self.held_record(hash).map_or(1, |record| record.incarnation);
                    self.note_held(now, (id, hash, Direction::In), incarnation, &reason);
                }
                fault
            }
            Ok(_) => None,
            Err(error) => {
                session.handle_refused(now);
                let id = session.peer;
                self.complain(now, id, &format!("documents wait: {error}"));
                None
            }
        };
        if let Some(fault) = fault {
            self.end(now, link, &fault);
        }
    }
}
