//! Settings that change while the node runs: who may call, how long agents may be silent, whose commands are delivered.

use super::Engine;
use crate::api::caller::Policy;
use crate::clock::Now;
use crate::fleet;

/// What a reload may change.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// Counts for every call from now on.
    pub policy: Policy,
    /// Attached agents are told.
    pub fleet: fleet::Settings,
    /// Of commands that are held already too.
    pub commands: fleet::commands::Settings,
}

impl Engine {
    /// The configuration was read again.
    pub fn handle_reloaded(&mut self, now: Now, reloaded: Reloaded) {
        self.arrive(now);
        self.policy = reloaded.policy;
        self.fleet.handle_settings(now, reloaded.fleet);
        #[cfg(feature = "http")]
        self.tell_listeners(now);
        self.view.set_trust(reloaded.commands.trust.clone());
        if self.commands.set_settings(reloaded.commands) {
            self.followed_commands = None;
            self.follow_commands(now);
        }
        self.done(now);
    }
}
