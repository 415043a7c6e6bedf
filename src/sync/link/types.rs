//! Types shared by the link layer and its caller.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};

use crate::error::Blame;
use crate::identity::EndpointId;

/// Number of one connection, dialled or accepted. Never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u64);

/// Streams of a link, the most urgent first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// Session messages; a bidirectional stream that the dialler opens.
    Control = 0,
    /// Commands.
    Command = 1,
    /// Merged documents.
    Merged = 2,
    /// Latest documents.
    Latest = 3,
    /// Backlog of documents.
    Bulk = 4,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Lane; 5] = [Lane::Control, Lane::Command, Lane::Merged, Lane::Latest, Lane::Bulk];

    /// Returns the lane of unidirectional streams that begin with this byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Lane> {
        Lane::ALL.into_iter().skip(1).find(|lane| *lane as u8 == byte)
    }
}

/// One value per [`Lane`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PerLane<T>([T; Lane::ALL.len()]);

impl<T> PerLane<T> {
    /// Returns the values, the most urgent lane first.
    pub fn iter(&self) -> impl Iterator<Item = (Lane, &T)> {
        Lane::ALL.into_iter().zip(&self.0)
    }

    /// Returns the values for modification; see [`PerLane::iter`].
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Lane, &mut T)> {
        Lane::ALL.into_iter().zip(&mut self.0)
    }
}

impl<T> Index<Lane> for PerLane<T> {
    type Output = T;

    fn index(&self, lane: Lane) -> &T {
        &self.0[lane as usize]
    }
}

impl<T> IndexMut<Lane> for PerLane<T> {
    fn index_mut(&mut self, lane: Lane) -> &mut T {
        &mut self.0[lane as usize]
    }
}

// `PerLane` indexes by the number of a lane.
const _: () = {
    let mut place = 0;
    while place < Lane::ALL.len() {
        assert!(Lane::ALL[place] as usize == place);
        place += 1;
    }
};

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lane::Control => "control",
            Lane::Command => "command",
            Lane::Merged => "merged",
            Lane::Latest => "latest",
            Lane::Bulk => "bulk",
        })
    }
}

/// Events of links.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkEvent {
    /// The peer has proved that it holds `peer`'s key, and the control lane is open. This does not tell the dialler that the
    /// acceptor admits it; only the acceptor's first message does.
    Up { link: LinkId, peer: EndpointId, dialled: bool },
    /// Bytes can be read. Call [`super::Links::read`] until it returns false.
    Readable { link: LinkId, lane: Lane },
    /// A lane that took only part of a write has room again.
    Writable { link: LinkId, lane: Lane },
    /// The link is gone, and unread bytes are lost. The last event of a link; every dialled link and every link that was up
    /// gets it, unless [`super::Links::close`] or [`super::Links::forget`] ended it.
    Down { link: LinkId, reason: DownReason },
}

impl LinkEvent {
    /// Returns the link of the event.
    #[must_use]
    pub fn link(&self) -> LinkId {
        match self {
            LinkEvent::Up { link, .. }
            | LinkEvent::Readable { link, .. }
            | LinkEvent::Writable { link, .. }
            | LinkEvent::Down { link, .. } => *link,
        }
    }
}

/// Reason why a dial could not begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkError {
    /// There is no address to dial.
    NoAddress,
    /// The peer is this node.
    Ourselves,
    /// The table of links is full ([`crate::limits::LINKS`]).
    TooMany,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::NoAddress => write!(f, "no address to dial"),
            LinkError::Ourselves => write!(f, "the peer to dial is this node itself"),
            LinkError::TooMany => write!(f, "{} connections at once are the limit", crate::limits::LINKS),
        }
    }
}

impl std::error::Error for LinkError {}

/// Reason for closing a link, as sent to the peer together with a text.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CloseCode {
    /// The peer broke the protocol.
    Protocol = 1,
    /// The closing node failed.
    Internal = 2,
    /// The peer is neither pinned nor proved the key, or the operator refused it.
    NotAdmitted = 3,
    /// Another link between the two nodes is kept.
    Replaced = 4,
    /// The closing node stops or restarts; nothing is wrong.
    Restarting = 5,
    /// The peer did not answer in time.
    Silent = 6,
    /// The dialled address belongs to another node.
    WrongPeer = 7,
}

/// Reason why a link went down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DownReason {
    /// The peer closed it; the code is a [`CloseCode`] if the peer runs this version.
    Closed { code: u64, reason: String },
    /// No datagram arrived for the idle timeout.
    Silent,
    /// No address answered, or the handshake did not complete in time.
    NoAnswer,
    /// The dialled address belongs to another node.
    WrongPeer { expected: EndpointId, found: EndpointId, at: SocketAddr },
    /// The peer does not know this connection: it has restarted.
    Reset,
    /// The peer accepts no connections at present.
    Refused,
    /// The link was not admitted yet, its network had the most such links, and one from another network took its place.
    Crowded,
    /// The two ends have no protocol or version in common.
    Incompatible(String),
    /// The peer broke the protocol.
    Misbehaved(String),
}

impl DownReason {
    /// Returns the party that has to act.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            DownReason::WrongPeer { .. } | DownReason::Incompatible(_) => Blame::Operator,
            _ => Blame::Peer,
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DownReason::Closed { code, reason } if reason.is_empty() => write!(f, "closed by the peer (code {code})"),
            DownReason::Closed { reason, .. } => write!(f, "closed by the peer: {reason}"),
            DownReason::Silent => write!(f, "the peer went silent"),
            DownReason::NoAnswer => write!(f, "no answer"),
            DownReason::WrongPeer { expected, found, at } => {
                write!(f, "{at} is node {found}, not {expected}; correct the peer's id or its address")
            }
            DownReason::Reset => write!(f, "the peer has restarted"),
            DownReason::Refused => write!(f, "the peer takes no connections at the moment"),
            DownReason::Crowded => write!(f, "its network had the most connections that were not admitted"),
            DownReason::Incompatible(what) => write!(f, "no common protocol with the peer: {what}"),
            DownReason::Misbehaved(what) => write!(f, "the peer broke the protocol: {what}"),
        }
    }
}
