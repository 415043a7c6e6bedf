//! SIGHUP: reads the settings again, with the files and the group that they name, and passes them to the threads.
//!
//! Flags and environment of a running process never change, so a reload covers `--settings` and the files and groups that it
//! names: `--shared-key-file`, `--api-token-file`, the group of `--admin-group`. All of it is validated before any of it is
//! applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use mio::Waker;

use super::{Error, parts};
use crate::api;
use crate::config::{self, Config, refuse_ourselves};
use crate::identity::EndpointId;
use crate::sync;

/// One-slot channels that deliver reloaded settings to the api and sync threads.
#[derive(Debug)]
pub(super) struct Outlets {
    id: EndpointId,
    api: (Sender<api::Reloaded>, Arc<Waker>),
    sync: (Sender<sync::Reloaded>, Arc<Waker>),
    watcher_heartbeat_ms: Option<Arc<AtomicU64>>,
}

/// Receiving ends of the threads.
pub(super) type Inlets = (Receiver<api::Reloaded>, Receiver<sync::Reloaded>);

impl Outlets {
    /// Creates the channels. `watcher_heartbeat_ms` is shared with the watcher, which reads its heartbeat interval there.
    pub(super) fn new(
        id: EndpointId,
        api: Arc<Waker>,
        sync: Arc<Waker>,
        watcher_heartbeat_ms: Option<Arc<AtomicU64>>,
    ) -> (Outlets, Inlets) {
        let ((api_reloads, for_api), (sync_reloads, for_sync)) = (bounded(1), bounded(1));
        let outlets = Outlets { id, api: (api_reloads, api), sync: (sync_reloads, sync), watcher_heartbeat_ms };
        (outlets, (for_api, for_sync))
    }

    /// Applies the settings that differ from `current`, and logs them. If any setting is invalid, none is applied.
    pub(super) fn reload(&self, current: &mut Config, read: Result<Config, config::Error>) {
        match read.map_err(Error::Config).and_then(|new| self.apply(current, new)) {
            Ok(changed) if changed.is_empty() => log::info!("reloaded: nothing has changed"),
            Ok(changed) => log::info!("reloaded: {}", changed.join("; ")),
            Err(error) => log::error!("nothing is reloaded: {error}"),
        }
    }

    fn apply(&self, current: &mut Config, new: Config) -> Result<Vec<&'static str>, Error> {
        refuse_ourselves(&new.peers, self.id)?;
        let formation_key = parts::formation_key(&new)?;
        if self.api.0.is_full() || self.sync.0.is_full() {
            return Err(Error::Place("a thread has not taken the last reload yet; reload again".to_owned()));
        }
        let later = current.needs_restart(&new);
        if !later.is_empty() {
            log::warn!("changed; takes effect at the next start: {}", later.join(", "));
        }
        let changes = [
            (current.formation_key != new.formation_key, "the formation key, for links to come"),
            (current.peers != new.peers, "peers"),
            (current.link_rates != new.link_rates, "how fast links may send"),
            (current.access != new.access, "who may call"),
            (current.fleet.times() != new.fleet.times(), "how long agents may be silent"),
            (current.fleet.trust_issuers != new.fleet.trust_issuers, "whose commands are delivered"),
            (current.fleet.command_ttl != new.fleet.command_ttl, "how long commands may be accepted"),
            (current.fleet.command_retention != new.fleet.command_retention, "how long commands are kept"),
        ];
        let changed: Vec<&str> = changes.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
        (current.formation_key, current.peers, current.link_rates) = (new.formation_key, new.peers, new.link_rates);
        (current.access, current.fleet) = (new.access, new.fleet);
        if !changed.is_empty() {
            self.hand_out(current, formation_key);
        }
        Ok(changed)
    }

    fn hand_out(&self, config: &Config, formation_key: Option<sync::proof::FormationKey>) {
        let for_sync =
            sync::Reloaded { formation_key, peers: config.peers.clone(), link_rates: config.link_rates.clone() };
        let for_api = api::Reloaded {
            policy: parts::policy(config),
            fleet: parts::fleet(config),
            commands: parts::commands(config, self.id),
        };
        if let Some(heartbeat_ms) = &self.watcher_heartbeat_ms {
            heartbeat_ms
                .store(u64::try_from(config.fleet.heartbeat.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        }
        // The slots are free, and the node ends together with a thread that is gone.
        let _ = (self.api.0.try_send(for_api), self.sync.0.try_send(for_sync));
        for waker in [&self.api.1, &self.sync.1] {
            if let Err(cause) = waker.wake() {
                log::warn!("waking a thread failed: {cause}");
            }
        }
    }
}
