//! Giving sessions what came for them, and hearing what they report.

use super::{Engine, Pending, STORE_OUTSTANDING};
use crate::clock::Now;
use crate::limits::BATCH_BYTES;
use crate::store::{self, Outcome, Request};
use crate::sync::copied;
use crate::sync::link::{Lane, LinkId};
use crate::sync::session::{Fault, Report, Session};

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

    fn work(&mut self, now: Now, session: &mut Session) -> Result<(), Fault> {
        self.read(now, session)?;
        if self.pending.len() < STORE_OUTSTANDING {
            if let Some(apply) = session.poll_apply(now)? {
                self.submit(Request::Apply(apply), Pending::Apply(session.link));
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
                traffic[lane as usize].0 += written as u64;
            }
            written
        };
        if session.fill(now, self.tip.durable, !self.waits.is_empty(), &snapshot, write)? {
            self.dirty.insert(link);
        }
        Ok(())
    }

    fn read(&mut self, now: Now, session: &mut Session) -> Result<(), Fault> {
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
                    peer.traffic[lane as usize].1 += bytes.len() as u64;
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

    fn on_report(&mut self, now: Now, session: &mut Session, report: Report) -> Result<(), Fault> {
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
                self.greet_present(now, session);
                Ok(())
            }
            Report::Present(presence) => {
                self.on_presence(now, &presence);
                Ok(())
            }
            Report::Refused(hash) => {
                let id = session.peer;
                if self.log.allows(now, &format!("refuses {id}")) {
                    let name = self.reader.snapshot().and_then(|snapshot| snapshot.record(&hash));
                    let name = name.ok().flatten().and_then(|record| record.name);
                    let name = name.map_or_else(|| "a document".to_owned(), |name| format!("document {name}"));
                    log::warn!("{id} does not keep {name}; its log says why");
                }
                Ok(())
            }
            Report::Acked(acked) => {
                if let Some(peer) = self.peers.get_mut(&session.peer) {
                    peer.last_ack = Some(now.mono);
                }
                self.check_waits(session, &acked);
                Ok(())
            }
        }
    }

    // The store's answers.

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
                for (_, reason) in &applied.refused {
                    if self.log.allows(now, &format!("refused {id}")) {
                        log::warn!("{id}: a document was refused: {reason}");
                    }
                }
                session.handle_applied(applied).err()
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
