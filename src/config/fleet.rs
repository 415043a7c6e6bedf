//! Settings of the fleet: heartbeats and thresholds, lifetimes of commands, and trusted issuers.

use std::time::Duration;

use super::duration::within;
use super::resolve::Layers;
use super::{Error, Flags};
use crate::fleet::Times;
use crate::identity::EndpointId;

/// Timing and trust of the fleet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FleetSettings {
    /// Interval at which agents send heartbeats.
    pub heartbeat: Duration,
    /// Silence after which LIVE becomes STALE. Longer than `heartbeat`.
    pub stale_after: Duration,
    /// Time after which STALE becomes DEAD.
    pub dead_after: Duration,
    /// Default time in which an agent must accept a command.
    pub command_ttl: Duration,
    /// Time for which a command is kept after it is over.
    pub command_retention: Duration,
    /// Nodes with commands that are delivered; empty: every member.
    pub trust_issuers: Vec<EndpointId>,
}

impl Default for FleetSettings {
    fn default() -> FleetSettings {
        FleetSettings {
            heartbeat: Duration::from_secs(30),
            stale_after: Duration::from_secs(90),
            dead_after: Duration::from_secs(300),
            command_ttl: Duration::from_secs(60),
            command_retention: Duration::from_secs(7 * 86_400),
            trust_issuers: Vec::new(),
        }
    }
}

impl FleetSettings {
    /// Returns the heartbeat interval and the thresholds.
    #[must_use]
    pub fn times(&self) -> Times {
        Times { heartbeat: self.heartbeat, stale_after: self.stale_after, dead_after: self.dead_after }
    }
}

pub(super) fn fleet(layers: &Layers<'_>) -> Result<FleetSettings, Error> {
    let default = FleetSettings::default();
    let settings = FleetSettings {
        heartbeat: layers.parse("--heartbeat", |f| &f.heartbeat, heartbeat)?.unwrap_or(default.heartbeat),
        stale_after: layers.parse("--stale-after", |f| &f.stale_after, threshold)?.unwrap_or(default.stale_after),
        dead_after: layers.parse("--dead-after", |f| &f.dead_after, threshold)?.unwrap_or(default.dead_after),
        command_ttl: layers.parse("--command-ttl", |f| &f.command_ttl, ttl)?.unwrap_or(default.command_ttl),
        command_retention: layers
            .parse("--command-retention", |f| &f.command_retention, retention)?
            .unwrap_or(default.command_retention),
        trust_issuers: trust_issuers(layers)?,
    };
    refuse_impatience(layers, &settings)?;
    Ok(settings)
}

/// Rejects a threshold at which an agent that keeps to the heartbeat interval would become STALE.
fn refuse_impatience(layers: &Layers<'_>, settings: &FleetSettings) -> Result<(), Error> {
    let (stale_after, heartbeat) = (settings.stale_after, settings.heartbeat);
    if stale_after > heartbeat {
        return Ok(());
    }
    let given = layers.one("--stale-after", |f: &Flags| &f.stale_after).map(|(called, _)| called);
    let given = given.or_else(|| layers.one("--heartbeat", |f| &f.heartbeat).map(|(called, _)| called));
    let reason = format!(
        "an agent would be stale after {stale_after:?} but beats every {heartbeat:?}; give a --stale-after of three \
         times --heartbeat or so"
    );
    Err(Error::new(given.unwrap_or_else(|| "--stale-after".to_owned()), reason))
}

fn heartbeat(text: &str) -> Result<Duration, String> {
    within(text, 0.05..=3_600.0, "from 0.05 s to 1 h")
}

fn threshold(text: &str) -> Result<Duration, String> {
    within(text, 0.05..=604_800.0, "from 0.05 s to 7 d")
}

pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    within(text, 1.0..=2_592_000.0, "from 1 s to 30 d")
}

fn retention(text: &str) -> Result<Duration, String> {
    within(text, 1.0..=31_536_000.0, "from 1 s to 365 d")
}

fn trust_issuers(layers: &Layers<'_>) -> Result<Vec<EndpointId>, Error> {
    let mut issuers = layers.parse_list(
        "--trust-issuer",
        |f| &f.trust_issuer,
        |texts| {
            let texts = texts.flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty());
            texts
                .map(|text| text.parse::<EndpointId>().map_err(|cause| cause.to_string()))
                .collect::<Result<Vec<_>, _>>()
        },
    )?;
    issuers.sort_unstable();
    issuers.dedup();
    Ok(issuers)
}
