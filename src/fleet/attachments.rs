//! Which stream holds which agent, and whose an agent's id is.

use std::collections::BTreeMap;

/// A stream of an agent, as the api engine numbers its calls. Never used twice.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct StreamId(pub u64);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Owner {
    /// A user of this machine.
    User(u32),
    /// A user whose id means nothing here. Two of them may be two users: neither takes an id from the other.
    Nobody,
    /// Whoever was let in over TCP.
    Tcp,
    /// This node's own watcher, which speaks for an agent until that speaks for itself.
    Watcher,
}

impl Owner {
    /// As stored in `agents/{id}` for other nodes; `None` for a user whose id means nothing.
    pub(super) fn to_record(self) -> Option<String> {
        match self {
            Owner::User(uid) => Some(format!("uid:{uid}")),
            Owner::Nobody => None,
            Owner::Tcp => Some("tcp".to_owned()),
            Owner::Watcher => Some("node".to_owned()),
        }
    }

    /// The inverse of [`Owner::to_record`]; an unknown record names no one.
    pub(super) fn from_record(record: Option<&str>) -> Owner {
        match record {
            Some("tcp") => Owner::Tcp,
            Some("node") => Owner::Watcher,
            Some(user) => user.strip_prefix("uid:").and_then(|uid| uid.parse().ok()).map_or(Owner::Nobody, Owner::User),
            None => Owner::Nobody,
        }
    }

    /// Whether both are known to be the same.
    #[must_use]
    pub fn is(self, other: Owner) -> bool {
        self != Owner::Nobody && self == other
    }
}

/// The streams that exist, and the agent that registered on each.
#[derive(Debug, Default)]
pub(super) struct Attachments(BTreeMap<StreamId, Attached>);

/// One stream.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) owner: Owner,
    /// `None` until it registered.
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

    /// The stream is gone, or is no longer looked at; the agent it held.
    pub(super) fn close(&mut self, stream: StreamId) -> Option<String> {
        self.0.remove(&stream)?.agent
    }
}
