//! The words the link layer and its user share.

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Index, IndexMut};

use crate::error::Blame;
use crate::identity::EndpointId;

/// One connection, dialled or accepted. Never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u64);

/// The streams of a link, the most urgent first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lane {
    /// Bidirectional, opened by the dialler.
    Control = 0,
    /// Commands.
    Command = 1,
    /// Merged documents.
    Merged = 2,
    /// Latest documents.
    Latest = 3,
    /// Catching up.
    Bulk = 4,
}

impl Lane {
    /// Every lane, the most urgent first.
    pub const ALL: [Lane; 5] = [Lane::Control, Lane::Command, Lane::Merged, Lane::Latest, Lane::Bulk];

    /// The lane whose unidirectional streams begin with this byte.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Lane> {
        Lane::ALL.into_iter().skip(1).find(|lane| *lane as u8 == byte)
    }
}

/// One value per [`Lane`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PerLane<T>([T; Lane::ALL.len()]);

impl<T> PerLane<T> {
    /// The values, the most urgent lane first.
    pub fn iter(&self) -> impl Iterator<Item = (Lane, &T)> {
        Lane::ALL.into_iter().zip(&self.0)
    }

    /// See [`PerLane::iter`].
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

/// What happened on the links.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkEvent {
    /// The peer has proved that it holds `peer`'s key, and the control lane is open. A dialler learns nothing of the
    /// acceptor's consent by this; only the acceptor's first message tells.
    Up { link: LinkId, peer: EndpointId, dialled: bool },
    /// There is something to read. To be followed by [`super::Links::read`] until that returns false.
    Readable { link: LinkId, lane: Lane },
    /// A lane that took less than it was given takes more.
    Writable { link: LinkId, lane: Lane },
    /// The link is gone and what was not read is lost. The last event of a link; every dialled link and every link that
    /// was up gets it, unless [`super::Links::close`] or [`super::Links::forget`] ended it.
    Down { link: LinkId, reason: DownReason },
}

impl LinkEvent {
    /// Which link it happened on.
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

/// Why a dial could not even begin.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkError {
    /// No address to try.
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

/// Why a link is closed, as the other side is told it; a sentence goes with it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CloseCode {
    /// The other side sent what it must not send.
    Protocol = 1,
    /// A failure of the closing node.
    Internal = 2,
    /// Neither pinned nor proved, or refused by the operator.
    NotAdmitted = 3,
    /// Another link between the two nodes is kept.
    Replaced = 4,
    /// The closing node stops or restarts; nothing is wrong.
    Restarting = 5,
    /// The other side did not answer in time.
    Silent = 6,
    /// The dialled address is not the wanted node's.
    WrongPeer = 7,
}

/// Why a link went down.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DownReason {
    /// The other side closed it; the code is a [`CloseCode`] if it runs this version.
    Closed { code: u64, reason: String },
    /// Nothing was heard for the idle timeout.
    Silent,
    /// No address answered, or the handshake did not end in time.
    NoAnswer,
    /// Another node lives at the dialled address.
    WrongPeer { expected: EndpointId, found: EndpointId, at: SocketAddr },
    /// The other side does not know this connection; it has restarted.
    Reset,
    /// The other side takes no connections at the moment.
    Refused,
    /// It was not admitted yet, its network had the most such links, and a link from another network took its place.
    Crowded,
    /// The two sides do not understand each other: no common protocol or version.
    Incompatible(String),
    /// The other side sent what it must not send.
    Misbehaved(String),
}

impl DownReason {
    /// Who has to change something.
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
