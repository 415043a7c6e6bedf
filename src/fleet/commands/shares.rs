//! Room in the table of deliveries, shared among issuers.
//!
//! Owns which commands that are not over belong to which issuer, and decides which of them gives way when there is no room: one of
//! the issuer that takes most of it. An issuer named by `--trust-issuer`, and this node, go before all others.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::EndpointId;
use crate::limits::{COMMAND_DELIVERIES, COMMANDS};

/// The standing of an issuer and how much room a command takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub(super) issuer: EndpointId,
    /// Named by `--trust-issuer`, or this node.
    pub(super) named: bool,
    /// Agents the command is for.
    pub(super) deliveries: usize,
}

/// What one issuer takes of the table.
#[derive(Debug, Default)]
struct Share {
    named: bool,
    deliveries: usize,
    /// By the order in which they came.
    commands: BTreeSet<(u64, String)>,
}

/// See the module's documentation.
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

    /// Whether there is room without displacing anything, `spare` commands included.
    pub(super) fn fits(&self, deliveries: usize, spare: usize) -> bool {
        self.commands + spare < COMMANDS && self.deliveries + deliveries <= COMMAND_DELIVERIES
    }

    /// Whether there is room, or would be once commands of other issuers gave way.
    pub(super) fn admits(&self, ask: Ask) -> bool {
        self.fits(ask.deliveries, 0) || self.largest().is_some_and(|victim| self.gives_way(victim, ask))
    }

    /// The command that gives way to another one; `None`: there is none, the other one waits.
    pub(super) fn victim(&self, ask: Ask) -> Option<String> {
        let victim = self.largest().filter(|victim| self.gives_way(*victim, ask))?;
        self.issuers.get(&victim)?.commands.last().map(|(_, id)| id.clone())
    }

    /// The issuer that takes most, of those that are not named if there are any.
    fn largest(&self) -> Option<EndpointId> {
        self.issuers.iter().max_by_key(|(_, share)| (!share.named, share.deliveries)).map(|(issuer, _)| *issuer)
    }

    fn gives_way(&self, victim: EndpointId, ask: Ask) -> bool {
        let Some(theirs) = self.issuers.get(&victim) else { return false };
        match (theirs.named, ask.named) {
            (false, true) => true,
            (true, false) => false,
            _ => {
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
