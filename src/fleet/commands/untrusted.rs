//! Commands of issuers that this node does not trust: stored for other nodes and never delivered here.
//!
//! Owns the number of them that is tracked: a share per issuer and a bound for all together. Beyond that, the one that has been
//! over for longest is removed. One that is not over is never removed, because other nodes may trust its issuer: it is left
//! untracked, and found by a rescan once there is room. Untrusted commands take no room in the table of deliveries.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::EndpointId;
use crate::limits::{COMMAND_UNTRUSTED, COMMAND_UNTRUSTED_SHARE};

/// State of one tracked command.
#[derive(Clone, Copy, Debug)]
struct UntrustedCommand {
    issuer: EndpointId,
    /// Order of arrival.
    number: u64,
    /// Boot time, in milliseconds, from which no further change of the command is expected.
    over: Option<i64>,
    /// Boot time, in milliseconds, at which it is removed.
    wake: Option<u64>,
}

/// Tracked commands of one issuer, by arrival and by end.
#[derive(Debug, Default)]
struct Share {
    by_number: BTreeSet<(u64, String)>,
    by_end: BTreeSet<(i64, String)>,
}

/// Table of the untrusted commands; see the module's documentation. Holds at most [`COMMAND_UNTRUSTED`].
#[derive(Debug, Default)]
pub(super) struct Untrusted {
    held: BTreeMap<String, UntrustedCommand>,
    issuers: BTreeMap<EndpointId, Share>,
    wakes: BTreeSet<(u64, String)>,
    last_number: u64,
    /// True if a command found no room.
    waiting: bool,
    /// True if room was freed since: at most three quarters of the issuer's share and of all places are then taken.
    has_freed: bool,
}

impl Untrusted {
    pub(super) fn contains(&self, id: &str) -> bool {
        self.held.contains_key(id)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Tracks a command that is over from `over` on and is removed at `wake`, if there is room. Returns the command to remove
    /// from the store if this one was one too many; it is no longer tracked.
    pub(super) fn put(
        &mut self,
        boot_ms: u64,
        id: &str,
        issuer: EndpointId,
        over: Option<i64>,
        wake: Option<u64>,
    ) -> Option<String> {
        let number = self.take_out(id).map_or(self.last_number + 1, |held| held.number);
        self.last_number = self.last_number.max(number);
        let count = |issuer| self.issuers.get(issuer).map_or(0, |share: &Share| share.by_number.len());
        let mut surplus = None;
        // The issuer's own share comes first, so that an issuer at its limit displaces only its own commands.
        if count(&issuer) >= COMMAND_UNTRUSTED_SHARE {
            match self.over_of(boot_ms, issuer) {
                Some(over) => surplus = Some(over),
                None => return self.turn_away(id, over, boot_ms),
            }
        } else if self.held.len() >= COMMAND_UNTRUSTED {
            let largest =
                self.issuers.iter().max_by_key(|(_, share)| share.by_number.len()).map(|(issuer, _)| *issuer)?;
            match self.over_of(boot_ms, largest) {
                Some(over) => surplus = Some(over),
                // Among issuers the largest share makes room. By one command more, or two issuers would displace each other in
                // turn.
                None if count(&largest) > count(&issuer) + 1 => self.let_go(largest),
                None => return self.turn_away(id, over, boot_ms),
            }
        }
        surplus.iter().for_each(|surplus| _ = self.take_out(surplus));
        let share = self.issuers.entry(issuer).or_default();
        share.by_number.insert((number, id.to_owned()));
        over.into_iter().for_each(|over| _ = share.by_end.insert((over, id.to_owned())));
        wake.into_iter().for_each(|wake| _ = self.wakes.insert((wake, id.to_owned())));
        self.held.insert(id.to_owned(), UntrustedCommand { issuer, number, over, wake });
        surplus
    }

    /// Returns the command of an issuer that has been over for longest.
    fn over_of(&self, boot_ms: u64, issuer: EndpointId) -> Option<String> {
        let (over, id) = self.issuers.get(&issuer)?.by_end.first()?;
        reached(*over, boot_ms).then(|| id.clone())
    }

    /// Stops tracking the newest command of an issuer, without removing it from the store.
    fn let_go(&mut self, issuer: EndpointId) {
        let newest = self.issuers.get(&issuer).and_then(|share| share.by_number.last()).map(|(_, id)| id.clone());
        newest.iter().for_each(|newest| _ = self.take_out(newest));
        self.waiting = true;
    }

    /// Handles a command without room: returns it for removal if it is over, and otherwise leaves it to a rescan.
    fn turn_away(&mut self, id: &str, over: Option<i64>, boot_ms: u64) -> Option<String> {
        let is_over = over.is_some_and(|over| reached(over, boot_ms));
        self.waiting |= !is_over;
        is_over.then(|| id.to_owned())
    }

    /// Returns true, once, if a rescan would find room for some of the untracked commands.
    pub(super) fn take_rescan(&mut self) -> bool {
        let again = self.waiting && self.has_freed;
        if again {
            (self.waiting, self.has_freed) = (false, false);
        }
        again
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.take_out(id);
    }

    fn take_out(&mut self, id: &str) -> Option<UntrustedCommand> {
        let held = self.held.remove(id)?;
        if let Some(share) = self.issuers.get_mut(&held.issuer) {
            share.by_number.remove(&(held.number, id.to_owned()));
            let has_room = share.by_number.len() <= COMMAND_UNTRUSTED_SHARE * 3 / 4;
            let is_empty = self.held.len() <= COMMAND_UNTRUSTED * 3 / 4;
            self.has_freed |= self.waiting && has_room && is_empty;
            held.over.into_iter().for_each(|over| _ = share.by_end.remove(&(over, id.to_owned())));
            if share.by_number.is_empty() {
                self.issuers.remove(&held.issuer);
            }
        }
        held.wake.into_iter().for_each(|wake| _ = self.wakes.remove(&(wake, id.to_owned())));
        Some(held)
    }

    /// Changes the time at which a tracked command is due.
    pub(super) fn wake_at(&mut self, id: &str, at: u64) {
        let Some(held) = self.held.get_mut(id) else { return };
        let before = held.wake.replace(at);
        before.into_iter().for_each(|before| _ = self.wakes.remove(&(before, id.to_owned())));
        self.wakes.insert((at, id.to_owned()));
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Returns a command that is due for removal.
    pub(super) fn take_due(&mut self, boot_ms: u64) -> Option<String> {
        let (at, id) = self.wakes.pop_first()?;
        if at > boot_ms {
            self.wakes.insert((at, id));
            return None;
        }
        self.held.get_mut(&id).into_iter().for_each(|held| held.wake = None);
        Some(id)
    }
}

/// Returns true if the boot time `at`, which is negative for a time before this boot, has come.
pub(super) fn reached(at: i64, boot_ms: u64) -> bool {
    u64::try_from(at).map_or(true, |at| at <= boot_ms)
}
