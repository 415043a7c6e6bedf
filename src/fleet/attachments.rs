//! Streams of agents and the agent registered on each, and the principals behind them.

use std::collections::BTreeMap;

/// Number of an agent's stream, assigned by the api engine to its calls. Never reused.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct StreamId(pub u64);

/// Principal at the other end of a stream or call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// User id on this machine.
    User(u32),
    /// User without a meaningful id here. Two of them may be two users: neither may take an id from the other.
    Nobody,
    /// A client admitted over TCP.
    Tcp,
    /// This node's watcher, which reports on an agent until the agent reports by itself.
    Watcher,
}

impl Owner {
    /// Returns the form stored in `agents/{id}` for other nodes; `None` for a user without a meaningful id.
    pub(super) fn to_record(self) -> Option<String> {
        match self {
            Owner::User(uid) => Some(format!("uid:{uid}")),
            Owner::Nobody => None,
            Owner::Tcp => Some("tcp".to_owned()),
            Owner::Watcher => Some("node".to_owned()),
        }
    }

    /// Returns the principal of a record, the inverse of [`Owner::to_record`]; `Owner::Nobody` for an unknown form.
    pub(super) fn from_record(record: Option<&str>) -> Owner {
        match record {
            Some("tcp") => Owner::Tcp,
            Some("node") => Owner::Watcher,
            Some(user) => user.strip_prefix("uid:").and_then(|uid| uid.parse().ok()).map_or(Owner::Nobody, Owner::User),
            None => Owner::Nobody,
        }
    }

    /// Returns true if both are known to be the same principal.
    #[must_use]
    pub fn is(self, other: Owner) -> bool {
        self != Owner::Nobody && self == other
    }
}

/// The open streams, and the agent that registered on each.
#[derive(Debug, Default)]
pub(super) struct Attachments(BTreeMap<StreamId, Attached>);

/// State of one stream.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) owner: Owner,
    /// Registered agent; `None` before the registration.
    pub(super) agent: Option<String>,
}

impl Attachments {
    pub(super) fn open(&mut self, stream: StreamId, owner: Owner) {
        self.0.insert(stream, Attached { owner, agent: None });
    }

    pub(super) fn get(&self, stream: StreamId) -> Option<&Attached> {
        self.0.get(&stream)
    }

    pub(super) fn attach(&mut self, stream: StreamId, agent: &str) {
        if let Some(attached) = self.0.get_mut(&stream) {
            attached.agent = Some(agent.to_owned());
        }
    }

    /// Removes a stream that is gone, or was superseded, and returns the agent it held.
    pub(super) fn close(&mut self, stream: StreamId) -> Option<String> {
        self.0.remove(&stream)?.agent
    }
}
