//! Settings that change while the node runs: rights of callers, liveness timeouts, trusted issuers.

use super::Engine;
use crate::api::caller::Policy;
use crate::clock::Now;
use crate::fleet;

/// The settings that a reload may change.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// Applies to every call from now on.
    pub policy: Policy,
    /// Attached agents are notified.
    pub fleet: fleet::Settings,
    /// Applies to stored commands too.
    pub commands: fleet::commands::Settings,
}

impl Engine {
    /// Applies reloaded settings.
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
