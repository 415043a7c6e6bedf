//! Shares of the issuers in the table of deliveries.
//!
//! Owns the assignment of commands that are not over to their issuers. When the table is full it evicts a command of the issuer
//! with the largest share. Issuers named by `--trust-issuer`, and this node itself, have priority over all others.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::EndpointId;
use crate::limits::{COMMAND_DELIVERIES, COMMANDS};

/// Request for room: the standing of an issuer and the size of a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) issuer: EndpointId,
    /// True for an issuer named by `--trust-issuer`, and for this node.
    pub(super) named: bool,
    /// Number of target agents.
    pub(super) deliveries: usize,
}

/// Share of one issuer in the table.
#[derive(Debug, Default)]
struct Share {
    named: bool,
    deliveries: usize,
    /// Commands in order of arrival.
    commands: BTreeSet<(u64, String)>,
}

/// Shares of all issuers; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Shares {
    issuers: BTreeMap<EndpointId, Share>,
    commands: usize,
    deliveries: usize,
}

impl Shares {
    pub(super) fn commands(&self) -> usize {
        self.commands
    }

    pub(super) fn deliveries(&self) -> usize {
        self.deliveries
    }

    /// Returns true if there is room without an eviction, with room for `spare` more commands left.
    pub(super) fn fits(&self, deliveries: usize, spare: usize) -> bool {
        self.commands + spare < COMMANDS && self.deliveries + deliveries <= COMMAND_DELIVERIES
    }

    /// Returns true if there is room, or would be after evictions.
    pub(super) fn admits(&self, ask: Ask) -> bool {
        self.fits(ask.deliveries, 0) || self.largest().is_some_and(|victim| self.gives_way(victim, ask))
    }

    /// Returns the command to evict in favour of another one; `None`: there is none, and the other one must wait.
    pub(super) fn victim(&self, ask: Ask) -> Option<String> {
        let victim = self.largest().filter(|victim| self.gives_way(*victim, ask))?;
        self.issuers.get(&victim)?.commands.last().map(|(_, id)| id.clone())
    }

    /// Returns the issuer with the largest share, among those without priority if there are any.
    fn largest(&self) -> Option<EndpointId> {
        self.issuers.iter().max_by_key(|(_, share)| (!share.named, share.deliveries)).map(|(issuer, _)| *issuer)
    }

    fn gives_way(&self, victim: EndpointId, ask: Ask) -> bool {
        let Some(theirs) = self.issuers.get(&victim) else { return false };
        match (theirs.named, ask.named) {
            (false, true) => true,
            (true, false) => false,
            _ => {
                // A strictly larger share even after the addition, or two issuers would evict each other in turn.
                let ours = self.issuers.get(&ask.issuer).map_or(0, |share| share.deliveries);
                theirs.deliveries > ours + ask.deliveries
            }
        }
    }

    pub(super) fn add(&mut self, ask: Ask, number: u64, id: &str) {
        let share = self.issuers.entry(ask.issuer).or_default();
        share.named = ask.named;
        if share.commands.insert((number, id.to_owned())) {
            share.deliveries += ask.deliveries;
            self.commands += 1;
            self.deliveries += ask.deliveries;
        }
    }

    pub(super) fn remove(&mut self, ask: Ask, number: u64, id: &str) {
        let Some(share) = self.issuers.get_mut(&ask.issuer) else { return };
        if share.commands.remove(&(number, id.to_owned())) {
            share.deliveries -= ask.deliveries;
            self.commands -= 1;
            self.deliveries -= ask.deliveries;
        }
        if share.commands.is_empty() {
            self.issuers.remove(&ask.issuer);
        }
    }
}
