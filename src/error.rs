//! Errors by who is to blame, so that one place decides what the other side is told and whether to carry on.

/// Who has to change something for a failure to go away.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Blame {
    /// Another node sent what it must not send.
    Peer,
    /// The caller asked for what cannot be done.
    Client,
    /// The configuration or the data directory needs a person.
    Operator,
    /// This machine: its disk or its memory.
    Machine,
    /// A defect of this program.
    Bug,
}
