//! A command as `fleet` and `api` read it, with times on this boot's clock.

use super::{Command, Rank};
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::mesh::CommandBody;
use crate::store::database_clock::DatabaseClock;
use crate::store::{Content, Record};

/// A decoded command record; see the module documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandView {
    /// Body that the issuer signed.
    pub body: CommandBody,
    /// Signature by the issuer.
    pub signature: [u8; 64],
    /// Stored status of each target, in the order of the body.
    pub ranks: Vec<Rank>,
    /// True if the end of the command was requested.
    pub cancel_requested: bool,
    /// Boot time in milliseconds at which it can no longer be accepted; `None` if it never expires, 0 if the machine has
    /// restarted since.
    pub until: Option<u64>,
    /// Boot time in milliseconds at which all targets had ended; negative if that was before this boot.
    pub ended: Option<i64>,
}

impl CommandView {
    /// Returns the command in a record, if it is one.
    pub(in crate::store) fn of(record: &Record, clocks: DatabaseClock) -> Option<CommandView> {
        let Content::Command(command) = &record.content else { return None };
        let Command { signed, ranks, cancel_requested, deadline, ended, .. } = &**command;
        Some(CommandView {
            body: signed.read(),
            signature: signed.signature,
            ranks: ranks.clone(),
            cancel_requested: *cancel_requested,
            until: deadline.until(clocks.boot),
            ended: ended.map(|age| clocks.boot_ms_of(age)),
        })
    }

    /// Returns the issuer.
    #[must_use]
    pub fn issuer(&self) -> EndpointId {
        super::signed::issuer(&self.body).unwrap_or_default()
    }

    /// Returns the targets, each with its stored status.
    pub fn targets(&self) -> impl Iterator<Item = (&str, Rank)> {
        self.body.targets.iter().map(String::as_str).zip(self.ranks.iter().copied())
    }

    /// Returns the targets with their status at `now`: a target that has not accepted an expired command is EXPIRED.
    pub fn targets_now(&self, now: Now) -> impl Iterator<Item = (&str, Rank)> {
        let expired = self.has_expired(now);
        self.targets().map(move |(agent, rank)| (agent, if expired { rank.max(Rank::Expired) } else { rank }))
    }

    /// Returns the status of `agent`, or `None` if the command is not addressed to it.
    #[must_use]
    pub fn rank_of(&self, agent: &str) -> Option<Rank> {
        self.targets().find(|(target, _)| *target == agent).map(|(_, rank)| rank)
    }

    /// Returns the milliseconds left to accept the command, or `None` if it never expires.
    #[must_use]
    pub fn left_ms(&self, now: Now) -> Option<u64> {
        self.until.map(|until| until.saturating_sub(now.boot_ms))
    }

    /// Returns true if the command can no longer be accepted.
    #[must_use]
    pub fn has_expired(&self, now: Now) -> bool {
        self.left_ms(now) == Some(0)
    }
}
