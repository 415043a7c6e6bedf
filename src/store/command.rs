//! Commands: a signed body that never changes, and for each target a status that only climbs.
//!
//! Owns what a command record may hold and how two copies of one combine. Who may issue, and which agent hears of what and
//! when, is for `api` and `fleet`. Nothing here is decided by a clock except how much time is left, and that is no part of
//! what tells two versions apart.

mod apply;
mod bytes;
mod change;
mod content;
mod error;
mod json;
mod progress;
mod signed;
mod view;
mod write;

pub(super) use bytes::{CommandRef, Parsed, ResultRef, encode, encode_result, parse};
pub use change::{CommandChange, CommandWrite, Progress, Report};
pub use content::{Command, CommandResult};
pub use error::CommandError;
pub use signed::Signed;
pub(crate) use signed::{check as check_body, is_json, is_long_past, same_time};
pub use view::CommandView;
pub(in crate::store) use write::ONLY_INCARNATION;

use crate::clock::BootId;

/// The collection that holds commands and nothing else.
pub const COMMANDS: &str = "commands";

/// How far a target is. The order is the one statuses climb in: of two copies the higher one is the truth.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Rank {
    /// Not accepted yet.
    Pending = 1,
    /// Not accepted in time.
    Expired = 2,
    /// Accepted.
    Executing = 3,
    /// Will not run, or was ended on request.
    Cancelled = 4,
    /// Ended without success.
    Failed = 5,
    /// Done.
    Completed = 6,
}

impl Rank {
    /// Every rank, the lowest first.
    pub const ALL: [Rank; 6] =
        [Rank::Pending, Rank::Expired, Rank::Executing, Rank::Cancelled, Rank::Failed, Rank::Completed];

    /// The rank with this number in the file and wire formats.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Rank> {
        Rank::ALL.into_iter().find(|rank| *rank as u8 == number)
    }

    /// Whether nothing more is expected.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Rank::Pending | Rank::Executing)
    }

    /// What documents call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Rank::Pending => "COMMAND_STATUS_PENDING",
            Rank::Expired => "COMMAND_STATUS_EXPIRED",
            Rank::Executing => "COMMAND_STATUS_EXECUTING",
            Rank::Cancelled => "COMMAND_STATUS_CANCELLED",
            Rank::Failed => "COMMAND_STATUS_FAILED",
            Rank::Completed => "COMMAND_STATUS_COMPLETED",
        }
    }

    /// One status for several targets: while one of them may still do something the command is pending or executing, then it
    /// is as bad as its worst target.
    #[must_use]
    pub fn overall(ranks: impl IntoIterator<Item = Rank>) -> Rank {
        let ranks: std::collections::BTreeSet<Rank> = ranks.into_iter().collect();
        let pending = ranks.contains(&Rank::Pending);
        if pending && ranks.len() == 1 {
            return Rank::Pending;
        }
        if pending || ranks.contains(&Rank::Executing) {
            return Rank::Executing;
        }
        let worst = [Rank::Failed, Rank::Cancelled, Rank::Expired];
        worst.into_iter().find(|rank| ranks.contains(rank)).unwrap_or(Rank::Completed)
    }
}

/// Until when a command may be accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deadline {
    /// For ever.
    Never,
    /// Until [`crate::clock::Now::boot_ms`] reaches this in this boot; in another, nobody knows.
    At { boot: BootId, boot_ms: u64 },
}

impl Deadline {
    /// What has no time left.
    pub(crate) const PAST: Deadline = Deadline::At { boot: BootId([0xff; 16]), boot_ms: 0 };

    /// The end as [`crate::clock::Now::boot_ms`] of `boot`, `None` for never. Of another boot: 0, since how long the machine
    /// was off is not known.
    #[must_use]
    pub fn until(self, boot: BootId) -> Option<u64> {
        match self {
            Deadline::Never => None,
            Deadline::At { boot: of, boot_ms } if of == boot => Some(boot_ms),
            Deadline::At { .. } => Some(0),
        }
    }

    /// Whether the machine has started anew since this was measured.
    #[must_use]
    pub fn is_unknown(self, boot: BootId) -> bool {
        matches!(self, Deadline::At { boot: of, .. } if of != boot)
    }
}
