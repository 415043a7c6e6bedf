//! SIGHUP: what files and the group database say is read again and handed to the threads.
//!
//! Flags and variables of a running process never change, so this is about what they point at: `--shared-key-file`,
//! `--api-token-file`, and the group behind `--admin-group`. All of it is judged before any of it is used.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;

use super::parts;
use crate::api::Policy;
use crate::config::{self, Config};
use crate::sync::proof::FormationKey;

/// The ways to the threads that use what was read. Each has room for one, which its thread takes when it goes round.
#[derive(Debug)]
pub(super) struct Outlets {
    pub(super) policies: Sender<Policy>,
    pub(super) keys: Sender<Option<FormationKey>>,
    pub(super) api: Arc<Waker>,
    pub(super) sync: Arc<Waker>,
}

/// The threads' ends.
pub(super) type Inlets = (Receiver<Policy>, Receiver<Option<FormationKey>>);

impl Outlets {
    pub(super) fn new(api: Arc<Waker>, sync: Arc<Waker>) -> (Outlets, Inlets) {
        let ((policies, for_api), (keys, for_sync)) = (bounded(1), bounded(1));
        (Outlets { policies, keys, api, sync }, (for_api, for_sync))
    }

    /// Puts into effect what differs from `current`, and says so in the log. What cannot be used changes nothing.
    pub(super) fn reload(&self, current: &mut Config, read: Result<Config, config::Error>) {
        match read {
            Ok(new) => self.apply(current, new),
            Err(error) => log::error!("nothing is reloaded: {error}"),
        }
    }

    fn apply(&self, current: &mut Config, new: Config) {
        let mut changed = Vec::new();
        if new.formation_key != current.formation_key {
            match parts::formation_key(&new).map(|key| self.keys.try_send(key).is_ok()) {
                Ok(true) => changed.push("the formation key, for links to come"),
                Ok(false) => {
                    return log::error!("the sync thread has not taken the last reload yet; nothing is reloaded");
                }
                Err(error) => return log::error!("nothing is reloaded: {error}"),
            }
            current.formation_key = new.formation_key;
        }
        if new.access != current.access {
            current.access = new.access;
            match self.policies.try_send(parts::policy(current)) {
                Ok(()) => changed.push("who may call"),
                Err(_) => log::error!("the api thread has not taken the last reload yet; reload again"),
            }
        }
        for waker in [&self.api, &self.sync] {
            if let Err(cause) = waker.wake() {
                log::warn!("waking a thread failed: {cause}");
            }
        }
        if new.watcher != current.watcher {
            log::warn!("the files of --agent-tls-* changed; they are used from the next start on");
        }
        log::info!(
            "reloaded: {}",
            if changed.is_empty() { "nothing has changed".to_owned() } else { changed.join("; ") }
        );
    }
}
