//! Admission of peers, and the choice between two connections with one peer.

use super::{Engine, Pending};
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::store::{PeerSetting, RunId, SavedPeer, StoreRequest};
use crate::sync::copied;
use crate::sync::link::{CloseCode, LinkId};
use crate::sync::proof::{self, Role};
use crate::sync::session::{Session, SessionError};

/// Age of the last comparison after which a peer's cursors are audited by another one.
const AUDIT: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// Silence, or two round trips if those take longer, after which an earlier connection counts as lost to the peer. Two
/// connections that cross are both young, and both were heard recently.
const QUIET: std::time::Duration = std::time::Duration::from_millis(500);

impl Engine {
    pub(super) fn on_up(&mut self, now: Now, link: LinkId, peer: EndpointId, dialled: bool) {
        let mut session = Session::new(link, peer, dialled, now);
        if peer == self.ours.id {
            let fault =
                SessionError::new(CloseCode::NotAdmitted, "this key is our own: a copied key, or our own address");
            self.close(now, link, peer, &fault);
            return;
        }
        if dialled {
            session.prove(self.proof(link, peer, Role::Dialler));
        }
        self.sessions.insert(link, session);
        self.dirty.insert(link);
    }

    fn proof(&self, link: LinkId, peer: EndpointId, role: Role) -> Vec<u8> {
        let Some(key) = &self.formation_key else { return Vec::new() };
        let exporter = self.links.export(link);
        proof::prove(key, role, &self.ours.app_id, &self.ours.id, &peer, &exporter).to_vec()
    }

    pub(super) fn on_proved(&mut self, now: Now, session: &mut Session, proof: &[u8]) -> Result<(), SessionError> {
        self.admission(session, proof)?;
        if !session.dialled {
            session.prove(self.proof(session.link, session.peer, Role::Acceptor));
        }
        self.links.admitted(session.link);
        let seen_at = self.links.remote(session.link);
        let Some(peer) = self.peers.entry(session.peer) else {
            return Err(SessionError::new(CloseCode::NotAdmitted, "this node knows as many peers as it can"));
        };
        peer.seen_at = seen_at;
        session.audit = peer.last_audit.is_some_and(|at| now.reached(at + AUDIT));
        session.admit(now, &self.ours, &self.reader)
    }

    /// Checks that the peer of a session may be admitted.
    fn admission(&self, session: &Session, proof: &[u8]) -> Result<(), SessionError> {
        let peer = self.peers.get(&session.peer);
        let refuse = |reason: &str| Err(SessionError::new(CloseCode::NotAdmitted, reason));
        if peer.is_some_and(|peer| peer.refused) {
            return refuse("this node was told to disconnect you (`peat-node connect` admits again)");
        }
        if peer.is_some_and(|peer| peer.pinned) {
            return Ok(());
        }
        let Some(key) = &self.formation_key else {
            return refuse("neither pinned here (--peer) nor a shared key here to prove (--shared-key)");
        };
        let exporter = self.links.export(session.link);
        // A peer dialled without being pinned, because it was seen before, must prove the key as well.
        let role = if session.dialled { Role::Acceptor } else { Role::Dialler };
        if proof.is_empty() {
            refuse("no formation proof: start the dialling node with --shared-key, or pin it here with --peer")
        } else if proof::verify(key, role, &self.ours.app_id, &session.peer, &self.ours.id, &exporter, proof) {
            Ok(())
        } else {
            refuse("the formation proof is wrong: shared keys or app ids differ")
        }
    }

    pub(super) fn on_met(
        &mut self,
        now: Now,
        session: &Session,
        run: RunId,
        skew_ms: i64,
        mismatched: &[String],
    ) -> Result<(), SessionError> {
        let id = session.peer;
        if let Some((first, others)) = mismatched.split_first()
            && self.log.allows(now, &format!("kind {id}"))
        {
            let others = if others.is_empty() { String::new() } else { format!(" (and {} others)", others.len()) };
            log::warn!(
                "{id}: collection '{first}'{others} is `latest` on one side only; it does not sync on this link"
            );
        }
        self.tell_addresses(now, session);
        self.remember_place(session);
        let Some(peer) = self.peers.get_mut(&id) else { return Ok(()) };
        peer.skew_ms = skew_ms;
        if peer.met_run(run) && self.copied.note(now, id) {
            log::error!("{}", copied::words(id, self.ours.id));
        }
        let earlier = peer.session;
        peer.session = Some(session.link);
        if peer.dialling == Some(session.link) {
            peer.dialling = None;
        }
        match earlier.filter(|link| *link != session.link) {
            Some(earlier) => self.choose(now, session, earlier, run),
            None => Ok(()),
        }
    }

    /// Saves the address of a peer that dials this node and cannot be dialled by configuration, so that this node can contact
    /// it after a restart.
    fn remember_place(&mut self, session: &Session) {
        let direct = self.links.way(session.link).is_some_and(|(through, _)| !through);
        let place = self.links.remote(session.link).filter(|_| direct && !session.dialled);
        let Some(peer) = self.peers.get_mut(&session.peer) else { return };
        peer.contact = None;
        if let Some(place) = place
            && peer.addresses.is_empty()
            && peer.saved_place != Some(place)
        {
            peer.saved_place = Some(place);
            let link = SavedPeer { peer: session.peer, wish: PeerSetting::Seen(place.to_string()) };
            self.submit(StoreRequest::SaveLink(link), Pending::Save { call: None });
        }
    }

    /// Logs a warning if a peer reports the node id of another node.
    pub(super) fn warn_of_namesake(&mut self, now: Now, id: EndpointId) {
        let Some(other) = self.peers.namesake_of(id, self.ours.id, &self.ours.node_id) else { return };
        let whose = if other == self.ours.id { "this node".to_owned() } else { other.to_string() };
        if self.log.allows(now, &format!("namesake {id}")) {
            let name = self.peers.get(&id).map_or("", |peer| &peer.name);
            log::warn!("{id}: it has the node id of {whose}, '{name}'; give one of the two another --node-id");
        }
    }

    /// Chooses between two sessions with one peer. If both belong to one run and were dialled by different ends, both ends keep
    /// the one that the smaller id dialled; a newer run, or a second session from the same dialler, replaces the earlier one.
    /// So does a session that begins while the earlier is quiet: a node never dials a peer over a healthy link, so the peer
    /// has lost the earlier one, e.g. after changing networks.
    fn choose(&mut self, now: Now, session: &Session, earlier: LinkId, run: RunId) -> Result<(), SessionError> {
        let Some(other) = self.sessions.get(&earlier) else { return Ok(()) };
        let smaller_dialled = session.dialled == (self.ours.id < session.peer);
        let silence = now.mono.saturating_duration_since(self.links.last_heard(earlier));
        let quiet = silence > QUIET.max(2 * self.links.rtt(earlier));
        let crossed = other.dialled != session.dialled && other.run() == Some(run) && !quiet;
        if crossed && !smaller_dialled {
            if let Some(peer) = self.peers.get_mut(&session.peer) {
                peer.session = Some(earlier);
            }
            return Err(SessionError::new(CloseCode::Replaced, "another connection between us is kept"));
        }
        self.drop_session(earlier);
        self.links.close(now, earlier, CloseCode::Replaced, "another connection between us is kept");
        Ok(())
    }
}
