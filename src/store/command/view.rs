//! A command as `fleet` and `api` look at it, with times on this boot's clock.

use super::{Command, Rank};
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::mesh::CommandBody;
use crate::store::age::Clocks;
use crate::store::{Content, Record};

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandView {
    /// What was signed.
    pub body: CommandBody,
    /// Its issuer's.
    pub signature: [u8; 64],
    /// One for each of the body's targets, as they are stored.
    pub ranks: Vec<Rank>,
    /// Somebody asked for its end.
    pub cancel_requested: bool,
    /// The boot time at which it can no longer be accepted; `None`: never. 0 when the machine has started anew since.
    pub until: Option<u64>,
    /// The boot time at which nothing more was expected of any target; before this boot it is negative.
    pub ended: Option<i64>,
}

impl CommandView {
    /// A record's command, if it holds one.
    pub(in crate::store) fn of(record: &Record, clocks: Clocks) -> Option<CommandView> {
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

    /// Who issued it.
    #[must_use]
    pub fn issuer(&self) -> EndpointId {
        super::signed::issuer(&self.body).unwrap_or_default()
    }

    /// Whom it is for, and how far each is.
    pub fn targets(&self) -> impl Iterator<Item = (&str, Rank)> {
        self.body.targets.iter().map(String::as_str).zip(self.ranks.iter().copied())
    }

    /// The same as everybody would see it now: who has not accepted it and no longer can, has missed it.
    pub fn targets_now(&self, now: Now) -> impl Iterator<Item = (&str, Rank)> {
        let expired = self.has_expired(now);
        self.targets().map(move |(agent, rank)| (agent, if expired { rank.max(Rank::Expired) } else { rank }))
    }

    /// How far `agent` is; `None` when the command is not for it.
    #[must_use]
    pub fn rank_of(&self, agent: &str) -> Option<Rank> {
        self.targets().find(|(target, _)| *target == agent).map(|(_, rank)| rank)
    }

    /// Milliseconds left to accept it in; `None`: any number.
    #[must_use]
    pub fn left_ms(&self, now: Now) -> Option<u64> {
        self.until.map(|until| until.saturating_sub(now.boot_ms))
    }

    /// Whether it can no longer be accepted.
    #[must_use]
    pub fn has_expired(&self, now: Now) -> bool {
        self.left_ms(now) == Some(0)
    }
}
