//! Presence on its way: said by this node, heard from others, passed on.

use super::Engine;
use crate::clock::Now;
use crate::sync::mesh;
use crate::sync::session::Session;

impl Engine {
    /// Tells every peer that this node is there.
    pub(super) fn announce(&mut self, now: Now) {
        if self.active {
            let presence = self.flood.announce(now, self.ours.id, self.reader.run());
            self.pass_on(&presence);
        }
    }

    /// A peer that has just connected hears of this node without waiting for the next announcement.
    pub(super) fn greet_present(&self, now: Now, session: &mut Session) {
        if let Some(presence) = self.flood.again(now, self.ours.id, self.reader.run()) {
            session.tell_presence(&presence);
        }
    }

    /// A peer said that some node is there. The session it came from is not among `sessions` while it is at work.
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
