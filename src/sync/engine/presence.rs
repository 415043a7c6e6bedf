//! Gossip of presence: announced by this node, received from others, forwarded.

use super::Engine;
use crate::clock::Now;
use crate::sync::mesh;
use crate::sync::session::Session;

impl Engine {
    /// Announces to every peer that this node is present.
    pub(super) fn announce(&mut self, now: Now) {
        if self.active {
            let presence = self.flood.announce(now, self.ours.id, self.reader.run());
            self.pass_on(&presence);
        }
    }

    /// Sends this node's last announcement to a peer that has just connected, ahead of the next one.
    pub(super) fn greet_present(&self, now: Now, session: &mut Session) {
        if let Some(presence) = self.flood.again(now, self.ours.id, self.reader.run()) {
            session.tell_presence(&presence);
        }
    }

    /// Handles an announcement. The session it came from is absent from `sessions` while it is being run, so it does not get
    /// the message back.
    pub(super) fn on_presence(&mut self, now: Now, presence: &mesh::Presence) {
        if let Some(node) = self.flood.take(now, self.ours.id, presence) {
            self.present.insert(node);
            self.pass_on(presence);
        }
    }

    fn pass_on(&mut self, presence: &mesh::Presence) {
        for (link, session) in &mut self.sessions {
            if session.peer.0 != presence.node.as_ref() && session.tell_presence(presence) {
                self.dirty.insert(*link);
            }
        }
    }
}
