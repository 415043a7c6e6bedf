//! Classification of errors by blame, from which one place derives the reply to the other side and whether to continue.

/// Party that has to act for a failure to go away.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Blame {
    /// Another node violated the protocol.
    Peer,
    /// The caller made an invalid request.
    Client,
    /// The configuration or the data directory needs the operator.
    Operator,
    /// This machine failed: its disk or its memory.
    Machine,
    /// The program has a defect.
    Bug,
}
