//! Commands: a signed body that never changes, and a status for each target that only advances.
//!
//! Owns the content of a command record, and the rule by which two copies of one combine. Must never decide who may issue a
//! command (`api`), nor which agent it is delivered to and at what time (`fleet`).
//!
//! # The problem
//!
//! An issuer addresses a command to several agents, which are attached to other nodes, behind links that come and go. Each
//! node that holds a copy changes it independently: the agent's node records that the agent accepted or completed it, the
//! issuer's node cancels it or finds that its time has passed, and any node may be the first to deliver the news of either.
//! Copies meet in any order, more than once, over any number of hops. In the end all must agree, and an agent must not begin a
//! command that its node knows to be expired or cancelled.
//!
//! # Why the simple ways fail
//!
//! * A register with the newest write loses statuses: two targets report at the same time on two nodes, and one report
//!   replaces the other. It also depends on clocks, which are off by years on machines that were never set.
//! * An owner that decides all statuses is a single point of failure, and is unreachable just when the agent reports.
//! * An Automerge document keeps both reports, but not their order: COMPLETED and CANCELLED for one target are a conflict that
//!   the library resolves by operation id. And any node could change the body.
//!
//! # The algorithm
//!
//! A command is one record with two parts. The *body* (id, targets, type, payload, time to live) is signed once by the issuer
//! and kept byte for byte (`signed.rs`); each node verifies it when it first arrives. The *state* is a status for each target,
//! in the order of the body, and a flag that its end was requested.
//!
//! `Command::join` combines two copies: for each target the higher `Rank`, the flag if either has it, and the shorter time
//! left. Maximum and disjunction are commutative, associative and idempotent, so copies agree after any order of merges. Of
//! two bodies with one id, the one with the smaller digest wins everywhere, statuses included.
//!
//! The order of ranks is the policy: PENDING < EXPIRED < EXECUTING < CANCELLED < FAILED < COMPLETED. An acceptance outranks an
//! expiry that another node saw, because the agent did begin; the outcome that an agent reports outranks a cancellation,
//! because it did happen. `Report` decides what an agent may report: a late acceptance is refused, and the status that makes
//! it late (EXPIRED or CANCELLED) is written in the same commit, so that the agent and the record cannot disagree.
//!
//! The result of each target is a record beside the command, with the id `command:agent`. It holds progress while the target
//! executes, then the result or error; `CommandResult` orders two copies by rank, then by a counter of the progress
//! (`progress.rs`), then by bytes.
//!
//! # Time
//!
//! Only the time left depends on a clock: the boot clock of the machine, and the wall clock for a command that arrives more
//! than a day late (`is_long_past`). See `Deadline`, and docs/storage.md, "Commands and time". It is not part of the
//! version: copies that differ in it are equal, so that sync does not send a command again for the milliseconds it was in
//! transit.
//!
//! # Bounds
//!
//! The targets of a command, its payload, results and time to live are bounded in `crate::limits`. A status advances at most
//! five times, so a command with n targets has at most 5n + 2 versions, regardless of the number of nodes and merges. Progress
//! is not bounded by that; `fleet` limits its rate. A removed command leaves tombstones of itself and its results, and its id
//! is never issued again.
//!
//! # Tests
//!
//! `store/tests/commands.rs` has each rule, the merge of random copies in random orders, and forged bodies.

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

/// Collection of commands. It has no other documents, and no other collection has commands.
pub const COMMANDS: &str = "commands";

/// Status of one target. The order is the one in which statuses advance: of two copies, the higher rank is right.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Rank {
    /// The target has not accepted the command.
    Pending = 1,
    /// The target did not accept it in time.
    Expired = 2,
    /// The target accepted it and has not reported an end.
    Executing = 3,
    /// The target will not execute it, or ended it on request.
    Cancelled = 4,
    /// The target ended it without success.
    Failed = 5,
    /// The target completed it.
    Completed = 6,
}

impl Rank {
    /// All ranks, from the lowest.
    pub const ALL: [Rank; 6] =
        [Rank::Pending, Rank::Expired, Rank::Executing, Rank::Cancelled, Rank::Failed, Rank::Completed];

    /// Returns the rank with this number in the file and wire formats.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Rank> {
        Rank::ALL.into_iter().find(|rank| *rank as u8 == number)
    }

    /// Returns true if no further status is expected.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        !matches!(self, Rank::Pending | Rank::Executing)
    }

    /// Returns the name of the status in documents.
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

    /// Combines the statuses of several targets: pending or executing while a target may still act, then the worst of them.
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

/// Time until which a command may be accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Deadline {
    /// No limit.
    Never,
    /// Until [`crate::clock::Now::boot_ms`] reaches `boot_ms` in this boot. In another boot the time left is unknown.
    At { boot: BootId, boot_ms: u64 },
}

impl Deadline {
    /// Deadline of a command that has no time left: no machine has this boot id.
    pub(crate) const PAST: Deadline = Deadline::At { boot: BootId([0xff; 16]), boot_ms: 0 };

    /// Returns the deadline as [`crate::clock::Now::boot_ms`] of `boot`, or `None` if there is none. For a deadline of another
    /// boot it is 0, because the duration without power is unknown.
    #[must_use]
    pub fn until(self, boot: BootId) -> Option<u64> {
        match self {
            Deadline::Never => None,
            Deadline::At { boot: of, boot_ms } if of == boot => Some(boot_ms),
            Deadline::At { .. } => Some(0),
        }
    }

    /// Returns true if the machine has restarted since the deadline was computed.
    #[must_use]
    pub fn is_unknown(self, boot: BootId) -> bool {
        matches!(self, Deadline::At { boot: of, .. } if of != boot)
    }
}
