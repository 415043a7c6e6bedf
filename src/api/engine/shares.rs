//! Fair shares of limited resources: connections, subscriptions, streams, control requests to the sync thread.
//!
//! Callers are counted by the user at the other end of a unix socket; all callers over TCP count as one. An eighth of everything
//! is reserved for administrators on this machine, who may use all of it.

use std::collections::BTreeMap;
use std::fmt;

use peat_ipc::{CallError, Code};

use crate::api::caller::{Caller, Role};

/// The account that a resource is charged to.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(in crate::api) enum Principal {
    /// Root, the node's own user and the admin group, on a unix socket; and the node's own watcher.
    Admin,
    User(u32),
    /// Every caller over TCP, with or without a token.
    Tcp,
}

impl Principal {
    pub(in crate::api) fn of(caller: &Caller, role: Option<Role>) -> Principal {
        match caller {
            Caller::Watcher => Principal::Admin,
            Caller::Unix { .. } if role == Some(Role::Admin) => Principal::Admin,
            Caller::Unix { uid, .. } => Principal::User(*uid),
            Caller::Tcp => Principal::Tcp,
        }
    }

    /// Returns the share of one principal in `total`: a quarter for a user, five eighths for TCP.
    fn share(self, total: usize) -> usize {
        match self {
            Principal::Admin => total,
            Principal::User(_) => total / 4,
            Principal::Tcp => total / 8 * 5,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Admin => f.write_str("administrators have"),
            Principal::User(uid) => write!(f, "user {uid} has"),
            Principal::Tcp => f.write_str("clients over TCP have"),
        }
    }
}

/// One limited resource, and its use per principal.
#[derive(Debug)]
pub(in crate::api) struct Shares {
    /// Name of the resource, in the plural, for messages.
    what: &'static str,
    total: usize,
    held: BTreeMap<Principal, usize>,
}

impl Shares {
    pub(in crate::api) fn new(what: &'static str, total: usize) -> Shares {
        Shares { what, total, held: BTreeMap::new() }
    }

    /// Returns the number in use.
    pub(in crate::api) fn len(&self) -> usize {
        self.held.values().sum()
    }

    /// Takes one.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: all are in use, or all of this caller's share, or all that are not reserved for administrators.
    pub(in crate::api) fn take(&mut self, principal: Principal) -> Result<(), CallError> {
        let Shares { what, total, .. } = *self;
        let (all, held) = (self.len(), self.held.get(&principal).copied().unwrap_or(0));
        let share = principal.share(total);
        // Use by all but administrators: an eighth of the total is reserved for these.
        let others = all - self.held.get(&Principal::Admin).copied().unwrap_or(0);
        let refused = if all >= total {
            format!("there are {total} {what}, which is the limit; try again later")
        } else if principal == Principal::Admin {
            String::new()
        } else if held >= share {
            format!("{principal} {share} of {total} {what}, which is the share of one; end some")
        } else if others >= total - total / 8 {
            format!("{others} of {total} {what} are in use, and the others are left to administrators; try again later")
        } else {
            String::new()
        };
        if !refused.is_empty() {
            return Err(CallError::new(Code::ResourceExhausted, refused));
        }
        *self.held.entry(principal).or_default() += 1;
        Ok(())
    }

    /// Gives one back.
    pub(in crate::api) fn give(&mut self, principal: Principal) {
        if let Some(held) = self.held.get_mut(&principal) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&principal);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(shares: &mut Shares, principal: Principal) -> usize {
        std::iter::from_fn(|| shares.take(principal).ok()).count()
    }

    #[test]
    fn a_user_gets_a_share_and_administrators_the_rest() {
        let mut shares = Shares::new("subscriptions", 1_024);
        assert_eq!(taken(&mut shares, Principal::User(1)), 256);
        let refused = shares.take(Principal::User(1)).expect_err("over its share");
        assert_eq!(refused.message, "user 1 has 256 of 1024 subscriptions, which is the share of one; end some");
        assert_eq!(taken(&mut shares, Principal::Tcp), 640);
        assert_eq!(taken(&mut shares, Principal::User(2)), 0, "what is left is for administrators");
        assert_eq!(taken(&mut shares, Principal::Admin), 128);
        assert!(shares.take(Principal::Admin).expect_err("all are in use").message.contains("1024"));
        shares.give(Principal::User(1));
        assert_eq!(taken(&mut shares, Principal::User(2)), 1);
        assert_eq!(taken(&mut shares, Principal::Admin), 0);
        assert_eq!(shares.len(), 1_024);
    }

    #[test]
    fn what_is_given_back_can_be_taken_by_others() {
        let mut shares = Shares::new("connections", 64);
        assert_eq!(taken(&mut shares, Principal::User(1)), 16);
        (0..16).for_each(|_| shares.give(Principal::User(1)));
        assert_eq!(shares.len(), 0);
        assert_eq!((1..5).map(|uid| taken(&mut shares, Principal::User(uid))).sum::<usize>(), 56);
    }
}
